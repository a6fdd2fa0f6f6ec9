//! The style as a test: floors, unsafe, sizes, labels. Each rule is a function over a file's text,
//! and each has a fixture below that must fail it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of a crate from the ground up. A module may import from those named before it; modules
/// on one line lean on each other.
const SHM_FLOORS: &[&[&str]] = &[
    &["sync"],
    &["file_map"],
    &["error"],
    &["layout"],
    &["record"],
    &["memory"],
    &["heap", "model"],
    &["checkpoint"],
    &["header"],
    &["slot"],
    &["gate"],
    &["lease"],
    &["stride"],
    &["region"],
    &["claim", "producer"],
    &["consumer", "copying"],
    &["lookback"],
    &["wait"],
    &["directory"],
    &["options"],
    &["inspect"],
    &["histogram"],
    &["page"],
    &["counters_reader"],
    &["counters"],
    &["lib"],
];
const SRC_FLOORS: &[&[&str]] = &[
    &["cpu", "clock"],
    &["protocol"],
    &["net"],
    &["address"],
    &["agent", "fragment", "recorder_page"],
    &["wire"],
    &["log"],
    &["error"],
    &["durable", "joining", "revival"],
    &["publisher", "subscriber"],
    &["merge"],
    &["sequencer"],
    &["order"],
    &["lib"],
];

/// Where `unsafe` may stand, and why it must.
const UNSAFE_FILES: &[&str] = &[
    "shm/src/sync.rs",      // a register the compiler may not see through
    "shm/src/memory.rs",    // the trait's contract
    "shm/src/heap.rs",      // slices of shared words
    "shm/src/model.rs",     // the model checker's memory
    "shm/src/region.rs",    // the mapping
    "shm/src/file_map.rs",  // the mapping of a finished file
    "shm/src/options.rs",   // formatting a fresh ring
    "shm/src/producer.rs",  // writing the payload
    "shm/src/claim.rs",     // writing in place
    "shm/src/consumer.rs",  // handing out a slice of the ring
    "src/net/mod.rs",       // says which of its files those are
    "src/net/sys.rs",       // system calls on sockets
    "src/net/xdp/bpf.rs",   // bpf(2)
    "src/net/ring.rs",      // submission and completion queues
    "src/net/xdp/mod.rs",   // says which of its files those are
    "src/net/xdp/bpf.rs",   // bpf(2)
    "src/net/xdp/rings.rs", // rings shared with the kernel
    "src/net/xdp/umem.rs",  // frames shared with the kernel
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
const BANNED: &[(&str, &str)] = &[
    ("safe because values are valid", "say which invariant holds here, and who keeps it"),
    ("trust me", "say which invariant holds here, and who keeps it"),
    ("todo!(", "finish it"),
    ("unimplemented!(", "finish it"),
    ("#[ignore", "a test that is not run is no test"),
    ("// This function", "say why, not that"),
];

/// A file's text up to its unit tests.
fn code(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests")
        .or_else(|| text.find("\n#[cfg(all(test"))
        .map_or(text, |at| &text[..at])
}

fn opens_with_its_contract(text: &str) -> Vec<String> {
    let sound = text.starts_with("//! ");
    if sound { vec![] } else { vec!["the first line is not `//! ...`".into()] }
}

fn fits_the_screen(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<&str> = code(text).lines().collect();
    if lines.len() > FILE_LINES_MAX {
        found.push(format!("{} lines, at most {FILE_LINES_MAX}", lines.len()));
    }
    for (i, line) in lines.iter().enumerate() {
        let unbreakable =
            line.contains("//! |") || line.contains("/// |") || line.trim_start().starts_with('"');
        if line.chars().count() > COLUMNS_MAX && !unbreakable {
            found.push(format!("line {}: more than {COLUMNS_MAX} columns", i + 1));
        }
        let indent = line.len() - line.trim_start().len();
        let is_function = line.trim_start().split(' ').take(4).any(|word| word == "fn");
        if is_function && !line.trim_start().starts_with("//") && !line.ends_with(';') {
            let (end, signature) = (" ".repeat(indent) + "}", " ".repeat(indent) + ")");
            let ends = |line: &&str| {
                *line == end || line.starts_with(&signature) && line.ends_with(';') // no body
            };
            let length = lines[i..].iter().position(ends).unwrap_or(0);
            if length >= FUNCTION_LINES_MAX {
                found.push(format!("line {}: a function of {} lines", i + 1, length + 1));
            }
        }
    }
    found
}

fn has_nothing_banned(text: &str) -> Vec<String> {
    let hit = |(phrase, remedy): &(&str, &str)| {
        text.contains(phrase).then(|| format!("`{phrase}`: {remedy}"))
    };
    BANNED.iter().filter_map(hit).collect()
}

fn keeps_unsafe_where_it_belongs(path: &str, text: &str) -> Vec<String> {
    let is_unsafe = |line: &&str| {
        let line = line.trim_start();
        !line.starts_with("//")
            && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe")
    };
    match code(text).lines().find(is_unsafe) {
        Some(line) if !UNSAFE_FILES.contains(&path) => vec![format!("unsafe: {}", line.trim())],
        _ => vec![],
    }
}

/// Imports of this crate's own modules that point up.
fn imports_only_downwards(module: &str, text: &str, floors: &[&[&str]]) -> Vec<String> {
    let floor_of = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let Some(own) = floor_of(module) else {
        return vec![format!("module {module} has no floor: add it to the map")];
    };
    let mut found = Vec::new();
    for part in code(text).split("crate::").skip(1) {
        let name: String =
            part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        if floor_of(&name).is_some_and(|floor| floor > own) {
            found.push(format!("{module} imports {name}, which is above it"));
        }
    }
    found
}

/// Labels of `pairs with:` comments that stand on one side only.
fn pairs_every_label(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut labels: BTreeMap<String, usize> = BTreeMap::new();
    for text in files.values() {
        for part in text.split("pairs with: ").skip(1) {
            let label = part.chars().take_while(|c| c.is_ascii_uppercase() || *c == '-');
            *labels.entry(label.collect()).or_default() += 1;
        }
    }
    let lonely = labels.iter().filter(|(_, count)| **count < 2);
    lonely.map(|(label, _)| format!("label {label} stands on one side only")).collect()
}

/// Dependency lines without the reason for the dependency.
fn gives_reasons_for_dependencies(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies")
            && !section.contains("workspace")
            && line.contains('=')
            && !line.trim_start().starts_with('#')
            && !line.contains(" # ")
        {
            found.push(format!("no reason given: {line}"));
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every source file by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    for top in ["src", "shm", "bench", "tools", "tests", "examples"] {
        rust_files(&root().join(top), &mut paths);
    }
    let relative = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    paths.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_house_is_tidy() {
    let files = sources();
    assert!(files.len() > 30, "the sources were not found");
    let mut found = Vec::new();
    for (path, text) in &files {
        let is_test = path.contains("tests/") || path.contains("fuzz/");
        let mut problems = opens_with_its_contract(text);
        problems.extend(fits_the_screen(text));
        // A test file may be as long as what it tests asks for.
        problems.retain(|problem| !(is_test && problem.ends_with("lines, at most 600")));
        if path != "tests/tidy.rs" {
            problems.extend(has_nothing_banned(text));
        }
        if !is_test
            && (path.starts_with("src") || path.starts_with("shm") || path.starts_with("tools"))
        {
            problems.extend(keeps_unsafe_where_it_belongs(path, text));
        }
        let mut module = path.trim_end_matches(".rs").rsplit('/').next().unwrap();
        if let Some((folder, _)) = path.strip_prefix("src/").and_then(|path| path.split_once('/')) {
            module = folder; // one floor a folder
        }
        if path.starts_with("src/") {
            problems.extend(imports_only_downwards(module, text, SRC_FLOORS));
        } else if path.starts_with("shm/src/") {
            problems.extend(imports_only_downwards(module, text, SHM_FLOORS));
            if text.contains("use gapless::") {
                problems.push("the ring imports the library above it".into());
            }
        }
        found.extend(problems.into_iter().map(|problem| format!("{path}: {problem}")));
    }
    let ring = files.into_iter().filter(|(path, _)| path.starts_with("shm/src/")).collect();
    found.extend(pairs_every_label(&ring));
    for manifest in ["Cargo.toml", "shm/Cargo.toml", "bench/Cargo.toml", "tools/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let problems = gives_reasons_for_dependencies(&text);
        found.extend(problems.into_iter().map(|problem| format!("{manifest}: {problem}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    assert!(!opens_with_its_contract("use std::fs;\n").is_empty());
    assert!(!fits_the_screen(&"x\n".repeat(FILE_LINES_MAX + 1)).is_empty());
    assert!(!fits_the_screen(&"x".repeat(COLUMNS_MAX + 1)).is_empty());
    let long = format!("    fn long() {{\n{}    }}\n", "        x;\n".repeat(FUNCTION_LINES_MAX));
    assert!(!fits_the_screen(&long).is_empty());
    assert!(fits_the_screen("    fn short() {\n        x;\n    }\n").is_empty());
    let declared = long.replace("fn long() {\n", "fn none(\n    ) -> X;\n");
    assert!(fits_the_screen(&declared).is_empty());
    assert!(!has_nothing_banned("todo!()").is_empty());
    assert!(!keeps_unsafe_where_it_belongs("src/merge.rs", "    unsafe { x() }").is_empty());
    assert!(
        keeps_unsafe_where_it_belongs("src/merge.rs", "// unsafe\n#![forbid(unsafe_code)]")
            .is_empty()
    );
    assert!(!imports_only_downwards("cpu", "use crate::merge::Merge;", SRC_FLOORS).is_empty());
    assert!(!imports_only_downwards("stranger", "", SRC_FLOORS).is_empty());
    assert!(imports_only_downwards("merge", "use crate::error::Error;", SRC_FLOORS).is_empty());
    let one = BTreeMap::from([("a".to_owned(), "// pairs with: LONELY".to_owned())]);
    assert!(!pairs_every_label(&one).is_empty());
    assert!(!gives_reasons_for_dependencies("[dependencies]\nlibc = \"1\"\n").is_empty());
    assert!(gives_reasons_for_dependencies("[dependencies]\nlibc = \"1\" # why\n").is_empty());
}

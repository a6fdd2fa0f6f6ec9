//! Creating rings, and attaching to them: the builders.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::checkpoint::{FIRST_SEQUENCE_MAX, Place, write_checkpoint, write_index};
use crate::consumer::{Consumer, Join, Start};
use crate::directory::{self, Unnamed};
use crate::error::RingError;
use crate::header::{Header, Mode, SESSION_END};
use crate::heap::Heap;
use crate::layout::{
    CAPACITY_MAX_BYTES, CAPACITY_MIN_BYTES, CONSUMER_SLOTS_MAX, Geometry, HEADER_BYTES,
    PRODUCER_PAGE, SMALL_PAGE_BYTES,
};
use crate::lease;
use crate::memory::Memory;
use crate::producer::Producer;
use crate::region::{HugePages, LockMemory, MapOptions, Mapped, Protection, Residency};
use crate::slot::Owner;

const CAPACITY_DEFAULT_BYTES: u64 = 16 << 20;
const ALIGNMENT_DEFAULT_BYTES: u64 = 64;
const CONSUMER_SLOTS_DEFAULT: u32 = 64;
/// A producer opens or creates; either can lose a race against another process this often.
const OPEN_ATTEMPTS: usize = 16;

/// How a ring is created, and what is expected of one that exists.
///
/// | option | default | range |
/// |---|---|---|
/// | `capacity_bytes` | 16 MiB | power of two, 4 KiB … 1 TiB |
/// | `alignment_bytes` | 64 | 16, 32, 64, 128 |
/// | `max_message_bytes` | an eighth of the capacity | 1 … about half the capacity, below 16 MiB |
/// | `consumer_slots` | 64 | 1 … 1,024 |
/// | `mode` | lossless | lossless, lossy |
/// | `parkable`, `evictable` | no | |
/// | `first_sequence` | 1 | 0 … 2^62 |
/// | `file_mode` | 0600 | |
/// | `foreign_owner` | no | |
/// | `directory` | `GAPLESS_DIR` or `/dev/shm/gapless` | any |
/// | `prefault` | yes | |
/// | `lock_memory` | if permitted | |
/// | `huge_pages` | the directory's | |
///
/// ```no_run
/// use gapless_shm::{Mode, RingOptions};
/// let mut producer =
///     RingOptions::new().capacity_bytes(64 << 20).mode(Mode::Lossy).open("market-data")?;
/// producer.try_publish(b"tick")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RingOptions {
    capacity_bytes: Option<u64>,
    alignment_bytes: Option<u64>,
    max_message_bytes: Option<u64>,
    consumer_slots: Option<u32>,
    mode: Option<Mode>,
    parkable: Option<bool>,
    evictable: Option<bool>,
    first_sequence: Option<u64>,
    session: Option<u64>,
    file_mode: Option<u32>,
    foreign_owner: Option<bool>,
    place: Placement,
}

/// The options that creating and attaching share.
#[derive(Clone, Debug)]
struct Placement {
    directory: Option<PathBuf>,
    map: MapOptions,
}

impl Default for Placement {
    fn default() -> Self {
        let map =
            MapOptions { prefault: true, lock: LockMemory::default(), huge: HugePages::default() };
        Self { directory: None, map }
    }
}

impl Placement {
    fn directory(&self) -> PathBuf {
        self.directory.clone().unwrap_or_else(directory::default_directory)
    }

    fn path(&self, name: &str) -> Result<PathBuf, RingError> {
        directory::ring_path(&self.directory(), name)
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        })*
    };
}

macro_rules! placement_setters {
    () => {
        /// Directory the ring lives in.
        #[must_use]
        pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
            self.place.directory = Some(directory.into());
            self
        }

        /// Whether all pages are made present before the first message. On a NUMA machine the
        /// creating thread's node gets them: pin first.
        #[must_use]
        pub fn prefault(mut self, prefault: bool) -> Self {
            self.place.map.prefault = prefault;
            self
        }

        /// Whether the pages are locked in memory.
        #[must_use]
        pub fn lock_memory(mut self, lock: LockMemory) -> Self {
            self.place.map.lock = lock;
            self
        }

        /// Which pages to use.
        #[must_use]
        pub fn huge_pages(mut self, huge: HugePages) -> Self {
            self.place.map.huge = huge;
            self
        }
    };
}

impl RingOptions {
    /// The defaults of the table above.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Bytes of data: how much history the ring holds, and how far a gating consumer may lag.
        capacity_bytes: u64,
        /// Records start at multiples of this. 64 gives a message of up to 56 bytes a cache line
        /// of its own; 16 packs small messages four to a line for throughput.
        alignment_bytes: u64,
        /// Largest message in one record.
        max_message_bytes: u64,
        /// How many consumers may be attached at once.
        consumer_slots: u32,
        /// Whether the producer waits for its consumers.
        mode: Mode,
        /// Whether consumers may sleep in the kernel. Costs the producer a fence for each message.
        parkable: bool,
        /// Whether the producer may throw consumers out; they are then handed copies instead of
        /// slices of the ring.
        evictable: bool,
        /// Sequence number of the first message of a new ring.
        first_sequence: u64,
        /// Session of a new ring, below 36^10: of a stream that began elsewhere. Default: one that
        /// no earlier ring of this host had.
        session: u64,
        /// File mode of a new ring, whatever the umask: 0600 the owner alone, 0640 and 0660 let a
        /// group observe and subscribe.
        file_mode: u32,
        /// Whether to publish into an existing ring that belongs to another user (not root). Such a
        /// user can truncate the file under the publisher.
        foreign_owner: bool,
    }
    /// Bytes of data that a ring of these options holds.
    pub fn capacity(&self) -> u64 {
        self.capacity_bytes.unwrap_or(CAPACITY_DEFAULT_BYTES)
    }

    /// Whether the producer never waits, and readers may be lapped.
    pub fn is_lossy(&self) -> bool {
        self.mode == Some(Mode::Lossy)
    }

    placement_setters!();

    /// Creates the ring and becomes its producer.
    ///
    /// # Errors
    /// [`RingError::Exists`] if there is one; [`RingError::BadOption`] names an option out of its
    /// range; [`RingError::NoSpace`] leaves nothing behind.
    pub fn create(&self, name: &str) -> Result<Producer, RingError> {
        let path = self.place.path(name)?;
        let dir = self.place.directory();
        directory::ensure(&dir)?;
        let failed = |what| {
            let path = path.clone();
            move |source| RingError::System { what, path, source }
        };
        let (granule, is_hugetlbfs) = self.granule(&dir)?;
        let header = self.header(name, granule)?;
        let geometry = header.geometry();
        let unnamed = Unnamed::create(&dir, name).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                RingError::Denied { path: path.clone(), what: "create it" }
            }
            _ => failed("create")(error),
        })?;
        let file = unnamed.file.try_clone().map_err(failed("open"))?;
        directory::allocate(&file, &path, header.file_bytes)?;
        let mode = Permissions::from_mode(self.file_mode.unwrap_or(0o600));
        file.set_permissions(mode).map_err(failed("set the mode of"))?;
        if !lease::acquire(&file, PRODUCER_PAGE).map_err(failed("lock"))? {
            return Err(RingError::Exists { path });
        }
        let mut memory = Mapped::new(file, &path, &geometry, Protection::Producer, self.place.map)?;
        if is_hugetlbfs {
            memory.note_hugetlbfs();
        }
        format(&memory, &header, &geometry);
        let producer = Producer::start(memory, geometry, std::process::id())?;
        match unnamed.publish(&path) {
            Ok(()) => Ok(producer),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(RingError::Exists { path })
            }
            Err(error) => Err(failed("name")(error)),
        }
    }

    /// Becomes the producer of a ring that exists, and carries on with its next sequence number.
    ///
    /// # Errors
    /// [`RingError::ProducerAlive`] if it has one; [`RingError::Differs`] if an option that was set
    /// is not the ring's; one error for each kind of damage.
    pub fn attach(&self, name: &str) -> Result<Producer, RingError> {
        let path = self.place.path(name)?;
        let file = directory::open(&path, true)?;
        if let Some(owner) = directory::foreign_owner(&file)
            && !self.foreign_owner.unwrap_or(false)
        {
            return Err(RingError::ForeignOwner { path, owner });
        }
        let header = read_header(&file, &path)?;
        self.compare(&header, &path)?;
        let failed = |source| RingError::System { what: "lock", path: path.clone(), source };
        if !lease::acquire(&file, PRODUCER_PAGE).map_err(failed)? {
            return Err(RingError::ProducerAlive { pid: directory::producer_pid(&file), path });
        }
        if !directory::is_current(&file, &path) {
            return Err(RingError::NotFound { path }); // removed since it was opened
        }
        let geometry = header.geometry();
        let mut memory = Mapped::new(file, &path, &geometry, Protection::Producer, self.place.map)?;
        if header.granule_bytes > SMALL_PAGE_BYTES as u64 {
            memory.note_hugetlbfs();
        }
        Producer::start(memory, geometry, std::process::id())
    }

    /// Attaches to the ring, or creates it.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach) and [`create`](Self::create).
    pub fn open(&self, name: &str) -> Result<Producer, RingError> {
        for _ in 0..OPEN_ATTEMPTS {
            match self.attach(name) {
                Err(RingError::NotFound { .. }) => {}
                other => return other,
            }
            match self.create(name) {
                Err(RingError::Exists { .. }) => {}
                other => return other,
            }
        }
        self.attach(name)
    }

    /// A ring in this process's own memory: for threads, tests and simulations.
    ///
    /// # Errors
    /// [`RingError::BadOption`] names an option out of its range.
    pub fn heap(&self) -> Result<(Producer<Heap>, HeapRing), RingError> {
        let header = self.header("heap", SMALL_PAGE_BYTES as u64)?;
        let geometry = header.geometry();
        let memory = Heap::zeroed(geometry.file_bytes);
        format(&memory, &header, &geometry);
        let producer = Producer::start(memory.clone(), geometry, std::process::id())?;
        Ok((producer, HeapRing { memory, geometry, taking: Arc::default() }))
    }

    /// Page size of the directory's file system, and whether that is hugetlbfs.
    fn granule(&self, dir: &Path) -> Result<(u64, bool), RingError> {
        let (granule, is_hugetlbfs) = directory::granule(dir)?;
        if self.place.map.huge == HugePages::Required && !is_hugetlbfs {
            let reason = "the directory is not on hugetlbfs: reserve pages (sysctl \
                          vm.nr_hugepages=N), mount -t hugetlbfs none DIR, and name DIR"
                .into();
            return Err(RingError::NoHugePages { path: dir.to_path_buf(), reason });
        }
        Ok((granule, is_hugetlbfs))
    }

    /// Checks the options and makes a header of them.
    fn header(&self, name: &str, granule: u64) -> Result<Header, RingError> {
        let refuse = |option, value, expected: &str| {
            Err(RingError::BadOption { option, value, expected: expected.to_owned() })
        };
        let capacity = self.capacity_bytes.unwrap_or(CAPACITY_DEFAULT_BYTES);
        if !capacity.is_power_of_two()
            || !(CAPACITY_MIN_BYTES..=CAPACITY_MAX_BYTES).contains(&capacity)
        {
            return refuse("capacity_bytes", capacity, "a power of two from 4 KiB to 1 TiB");
        }
        let alignment = self.alignment_bytes.unwrap_or(ALIGNMENT_DEFAULT_BYTES);
        if !matches!(alignment, 16 | 32 | 64 | 128) {
            return refuse("alignment_bytes", alignment, "16, 32, 64 or 128");
        }
        let largest = Geometry::largest_message(capacity, alignment) as u64;
        let max_message = self.max_message_bytes.unwrap_or((capacity / 8).min(largest));
        if !(1..=largest).contains(&max_message) {
            let expected = format!("1 to {largest} with this capacity and alignment");
            return refuse("max_message_bytes", max_message, &expected);
        }
        let slots = self.consumer_slots.unwrap_or(CONSUMER_SLOTS_DEFAULT);
        if !(1..=CONSUMER_SLOTS_MAX).contains(&slots) {
            return refuse("consumer_slots", slots.into(), "1 to 1024");
        }
        let first_sequence = self.first_sequence.unwrap_or(1);
        if first_sequence > FIRST_SEQUENCE_MAX {
            return refuse("first_sequence", first_sequence, "0 to 2^62");
        }
        if let Some(session) = self.session.filter(|session| *session >= SESSION_END) {
            return refuse("session", session, "below 36^10");
        }
        let mode = self.mode.unwrap_or_default();
        let evictable = self.evictable.unwrap_or(false);
        if evictable && mode == Mode::Lossy {
            return refuse("evictable", 1, "a lossless ring: nobody holds up a lossy one");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut header = Header {
            name: name.to_owned(),
            session: self.session.unwrap_or_else(|| new_session(now.as_micros() as u64)),
            created_unix_ns: now.as_nanos() as u64,
            first_sequence,
            capacity_bytes: capacity,
            alignment_bytes: alignment,
            max_message_bytes: max_message as usize,
            consumer_slots: slots as usize,
            mode,
            parkable: self.parkable.unwrap_or(false),
            evictable,
            file_bytes: 0,
            granule_bytes: granule,
        };
        header.file_bytes = header.geometry().file_bytes as u64;
        Ok(header)
    }

    /// Refuses a ring whose properties are not those asked for.
    fn compare(&self, header: &Header, path: &Path) -> Result<(), RingError> {
        let pairs = [
            ("capacity_bytes", self.capacity_bytes, header.capacity_bytes),
            ("alignment_bytes", self.alignment_bytes, header.alignment_bytes),
            ("max_message_bytes", self.max_message_bytes, header.max_message_bytes as u64),
            ("consumer_slots", self.consumer_slots.map(u64::from), header.consumer_slots as u64),
            (
                "lossy",
                self.mode.map(|m| (m == Mode::Lossy).into()),
                (header.mode == Mode::Lossy).into(),
            ),
            ("parkable", self.parkable.map(u64::from), header.parkable.into()),
            ("evictable", self.evictable.map(u64::from), header.evictable.into()),
            ("session", self.session, header.session),
        ];
        for (option, wanted, existing) in pairs {
            if let Some(wanted) = wanted
                && wanted != existing
            {
                return Err(RingError::Differs { path: path.into(), option, existing, wanted });
            }
        }
        Ok(())
    }
}

/// A session that no earlier ring of this host had: the time in µs, never the same twice in a
/// process.
fn new_session(unix_us: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only uniqueness counts.
    let next = |last: u64| Some(unix_us.max(last + 1));
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    unix_us.max(before.unwrap_or(0) + 1) % SESSION_END
}

/// Writes the header and the first checkpoint into zeroed memory.
pub(crate) fn format<M: Memory>(memory: &M, header: &Header, geometry: &Geometry) {
    // SAFETY: nobody else knows this memory yet.
    unsafe { memory.copy_in(0, &header.encode()) };
    let place = Place { position: 0, sequence: header.first_sequence };
    write_checkpoint(memory, 0, place);
    write_index(memory, geometry, place);
}

/// Reads and checks the header of an open file.
pub(crate) fn read_header(file: &std::fs::File, path: &Path) -> Result<Header, RingError> {
    let failed = |source| RingError::System { what: "read", path: path.to_path_buf(), source };
    let length = file.metadata().map_err(failed)?.len();
    let mut bytes = [0; HEADER_BYTES];
    let read = directory::read_start(file, &mut bytes).map_err(failed)?;
    Header::decode(&bytes[..read], length, path)
}

/// A ring on the heap, to subscribe to.
#[derive(Clone)]
pub struct HeapRing {
    memory: Heap,
    geometry: Geometry,
    /// Held while a slot is taken: the heap has no leases.
    taking: Arc<Mutex<()>>,
}

impl HeapRing {
    /// Attaches a consumer; it gates the producer if the ring is lossless.
    ///
    /// # Errors
    /// [`RingError::NoFreeSlot`], [`RingError::SequenceGone`].
    pub fn subscribe(&self, name: &str, start: Start) -> Result<Consumer<Heap>, RingError> {
        let (memory, g) = (&self.memory, &self.geometry);
        // Poisoned: another attach panicked before it took a slot; nothing is half done.
        let _taking = self.taking.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let slot = (0..g.slots)
            .find(|&slot| crate::slot::SlotState::load(memory, g, slot).is_free())
            .ok_or(RingError::NoFreeSlot { path: "heap".into(), slots: g.slots })?;
        let gating = !g.lossy;
        let owner = Owner { pid: std::process::id(), name, gating };
        Consumer::join(memory.clone(), *g, &Join { owner, start, slot: Some(slot) })
    }

    /// Attaches an observer: it holds nobody up and may be lapped.
    ///
    /// # Errors
    /// [`RingError::SequenceGone`].
    pub fn observe(&self, start: Start) -> Result<Consumer<Heap>, RingError> {
        let owner = Owner { pid: std::process::id(), name: "", gating: false };
        Consumer::join(self.memory.clone(), self.geometry, &Join { owner, start, slot: None })
    }
}

/// How a consumer attaches to a ring.
///
/// ```no_run
/// use gapless_shm::{ConsumerOptions, Start};
/// let mut consumer = ConsumerOptions::new().name("risk").start(Start::Oldest).attach("orders")?;
/// consumer.poll(64, |message| println!("{}", message.sequence))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    name: String,
    start: Start,
    observer: bool,
    place: Placement,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            start: Start::Oldest,
            observer: false,
            place: Placement::default(),
        }
    }
}

impl ConsumerOptions {
    /// Starts at the oldest message, in a slot of its own, without a name.
    pub fn new() -> Self {
        Self::default()
    }

    placement_setters!();

    /// Name shown to whoever asks which consumer is slow; 40 bytes are kept.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Where to start.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Takes no slot: needs only read permission, holds nobody up, may be lapped, cannot sleep.
    #[must_use]
    pub fn observer(mut self, observer: bool) -> Self {
        self.observer = observer;
        self
    }

    /// Attaches to the ring `name`.
    ///
    /// # Errors
    /// [`RingError::NotFound`], [`RingError::Denied`], [`RingError::NoFreeSlot`],
    /// [`RingError::SequenceGone`], and one error for each kind of damage.
    pub fn attach(&self, name: &str) -> Result<Consumer, RingError> {
        let path = self.place.path(name)?;
        let file = directory::open(&path, !self.observer)?;
        let header = read_header(&file, &path)?;
        let geometry = header.geometry();
        let protection = if self.observer { Protection::Reader } else { Protection::Consumer };
        let memory = Mapped::new(file, &path, &geometry, protection, self.place.map)?;
        let slot = if self.observer { None } else { Some(lease_slot(&memory, &geometry, &path)?) };
        let gating = slot.is_some() && header.mode == Mode::Lossless;
        let owner = Owner { pid: std::process::id(), name: &self.name, gating };
        Consumer::join(memory, geometry, &Join { owner, start: self.start, slot })
    }
}

/// Takes the lease of the first slot that nobody holds.
fn lease_slot(memory: &Mapped, geometry: &Geometry, path: &Path) -> Result<usize, RingError> {
    let failed = |source| RingError::System { what: "lock", path: path.to_path_buf(), source };
    for slot in 0..geometry.slots {
        if lease::acquire(memory.file(), geometry.slot_offset(slot)).map_err(failed)? {
            return Ok(slot);
        }
    }
    Err(RingError::NoFreeSlot { path: path.to_path_buf(), slots: geometry.slots })
}

impl Producer<Mapped> {
    /// What the system granted of prefaulting, locking and huge pages.
    pub fn residency(&self) -> Residency {
        self.memory.residency()
    }
}

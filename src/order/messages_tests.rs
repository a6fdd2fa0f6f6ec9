//! Layouts: golden bytes, the SBE schema, and what is no message.

use proptest::prelude::*;

use super::*;
use crate::order::field::CODES;

fn order() -> NewOrder {
    NewOrder {
        client_order_id: ClientOrderId(1002),
        price: Price(-1),
        quantity: Quantity(15),
        instrument: InstrumentId(0x0102_0304),
        side: Side::Sell,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Ioc,
        post_only: true,
    }
}

#[test]
fn golden_bytes() {
    let bytes = order().encode();
    #[rustfmt::skip]
    let golden = [
        32, 0, 1, 0, 71, 0, 1, 0,
        0xEA, 3, 0, 0, 0, 0, 0, 0,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        15, 0, 0, 0, 0, 0, 0, 0,
        4, 3, 2, 1,
        2, 2, 3, 1,
    ];
    assert_eq!(bytes, golden);
    assert_eq!(Message::decode(&bytes), Ok(Message::NewOrder(order())));
}

#[test]
fn a_longer_block_of_a_later_version_is_read() {
    let mut bytes = order().encode().to_vec();
    bytes[0] += 3;
    bytes[6] += 1;
    assert!(matches!(Message::decode(&bytes), Err(MessageError::Short { wanted: 43, .. })));
    bytes.extend([9; 3]);
    assert_eq!(Message::decode(&bytes), Ok(order().into()));
}

#[test]
fn what_is_no_message_is_named() {
    let sound = order().encode();
    let with = |at: usize, value: u8| {
        let mut bytes = sound;
        bytes[at] = value;
        Message::decode(&bytes).unwrap_err()
    };
    assert_eq!(Message::decode(&[1; 7]), Err(MessageError::Short { bytes: 7, wanted: 8 }));
    assert_eq!(with(0, 31), MessageError::Short { bytes: 39, wanted: 40 });
    assert_eq!(with(4, 70), MessageError::Schema { schema: 70 });
    assert_eq!(with(2, 200), MessageError::Template { template: 200 });
    assert_eq!(with(36, 3), MessageError::Value { message: "NewOrder", field: "side" });
    assert_eq!(with(39, 2), MessageError::Value { message: "NewOrder", field: "post_only" });
}

#[test]
fn a_message_is_told_in_one_line() {
    let text = Message::from(order()).to_string();
    let fields = "client_order_id=1002 price=-1 quantity=15 instrument=16909060";
    let rest = "side=Sell order_type=Limit time_in_force=Ioc post_only=true";
    assert_eq!(text, format!("NewOrder {fields} {rest}"));
}

#[test]
fn the_template_is_known_without_decoding() {
    let mut bytes = order().encode();
    assert_eq!(Message::template_of(&bytes), Some(NewOrder::TEMPLATE_ID));
    assert_eq!(Message::template_of(&bytes[..7]), None);
    bytes[4] += 1;
    assert_eq!(Message::template_of(&bytes), None);
    let named = Message::TEMPLATES.iter().find(|(_, name)| *name == "NewOrder");
    assert_eq!((named, Message::TEMPLATES.len()), (Some(&(1, "NewOrder")), LAYOUTS.len()));
}

#[test]
fn the_schema_file_says_the_same() {
    let schema = schema();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/order/schema.xml");
    if std::env::var_os("GAPLESS_WRITE_SCHEMA").is_some() {
        std::fs::write(file, &schema).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap();
    assert!(written == schema, "run this test with GAPLESS_WRITE_SCHEMA=1 and look at the change");
}

/// The SBE 1.0 schema of all messages.
fn schema() -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n\
         <!-- The order path of gapless. Kept equal to messages.rs by its tests. -->\n\
         <sbe:messageSchema xmlns:sbe=\"http://fixprotocol.io/2016/sbe\" package=\"gapless\" \
         id=\"{SCHEMA_ID}\" version=\"{SCHEMA_VERSION}\" semanticVersion=\"1.0\" \
         byteOrder=\"littleEndian\">\n    <types>\n        <composite name=\"messageHeader\">\n"
    );
    for name in ["blockLength", "templateId", "schemaId", "version"] {
        xml += &format!("            <type name=\"{name}\" primitiveType=\"uint16\"/>\n");
    }
    xml += "        </composite>\n";
    for (name, primitive) in [
        ("ClientId", "uint16"),
        ("ClientOrderId", "uint64"),
        ("OrderId", "uint64"),
        ("InstrumentId", "uint32"),
        ("Price", "int64"),
        ("Quantity", "uint64"),
        ("Money", "int64"),
    ] {
        xml += &format!("        <type name=\"{name}\" primitiveType=\"{primitive}\"/>\n");
    }
    xml += "        <type name=\"Symbol\" primitiveType=\"char\" length=\"16\"/>\n";
    for (name, variants) in [("Bool", &[("False", 0), ("True", 1)][..])].iter().chain(CODES) {
        xml += &format!("        <enum name=\"{name}\" encodingType=\"uint8\">\n");
        for (variant, code) in *variants {
            xml += &format!("            <validValue name=\"{variant}\">{code}</validValue>\n");
        }
        xml += "        </enum>\n";
    }
    xml += "    </types>\n";
    for Layout { name, template, fields } in LAYOUTS {
        let block: usize = fields.iter().map(|&(.., bytes)| bytes).sum();
        xml += &format!(
            "    <sbe:message name=\"{name}\" id=\"{template}\" blockLength=\"{block}\">\n"
        );
        let mut offset = 0;
        for (number, (name, kind, bytes)) in fields.iter().enumerate() {
            let id = number + 1;
            xml += &format!(
                "        <field name=\"{name}\" id=\"{id}\" type=\"{kind}\" offset=\"{offset}\"/>\n"
            );
            offset += bytes;
        }
        xml += "    </sbe:message>\n";
    }
    xml + "</sbe:messageSchema>\n"
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_or_refused(
        template in prop::sample::select(LAYOUTS.iter().map(|l| l.template).collect::<Vec<_>>()),
        mut bytes in prop::collection::vec(any::<u8>(), 8..160),
    ) {
        let block = (bytes.len() - 8) as u16;
        bytes[..2].copy_from_slice(&block.to_le_bytes());
        bytes[2..4].copy_from_slice(&template.to_le_bytes());
        bytes[4..6].copy_from_slice(&SCHEMA_ID.to_le_bytes());
        if let Ok(message) = Message::decode(&bytes) {
            let mut again = Vec::new();
            message.encode_to(&mut again);
            prop_assert_eq!(&again[8..], &bytes[8..again.len()]);
            prop_assert_eq!(Message::decode(&again), Ok(message));
        }
    }
}

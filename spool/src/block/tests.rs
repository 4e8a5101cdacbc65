//! Blocks come back, and what is no block is none.

use super::*;
use proptest::prelude::*;

const PLACE: Place = Place {
    class: Class::Normal,
    epoch: 7,
    segment: 3,
    offset: 8192,
};

fn items() -> impl Strategy<Value = Vec<Item>> {
    let row = (
        0_u32..4,
        any::<i64>(),
        any::<u64>(),
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            (any::<u8>(), 0_usize..5000).prop_map(|(byte, len)| vec![byte; len]),
        ],
    );
    prop::collection::vec(row, 1..30).prop_map(|rows| {
        let number = |(seq, (stream, wall, boot, payload)): (u64, (u32, i64, u64, Vec<u8>))| Item {
            stream,
            // With holes now and then.
            seq: seq * 2 / 3 + u64::from(stream) * 1000 + seq,
            wall,
            boot,
            payload: payload.into(),
        };
        (0..).zip(rows).map(number).collect()
    })
}

fn block(items: &[Item], level: Option<i32>) -> Vec<u8> {
    let shared = Shared {
        incarnation: 2,
        commit: 4096,
        boot: BootId([9; 16]),
    };
    let entries = vec![Entry::Position {
        source: "pod/a".to_owned(),
        value: 5,
        order: 6,
    }];
    let mut out = Vec::new();
    Draft::of_records(&items.iter().collect::<Vec<_>>(), entries, level).write(PLACE, shared, &mut out);
    out
}

/// A block whose checksums are true and whose contents are anything.
fn forged(table: &[u8], entries: u16, stored: &[u8], raw: u32, codec: u8, kind: u8) -> Vec<u8> {
    let table = &table[..table.len().min(PAGE - FIXED)];
    let mut out = vec![0; FIXED];
    out[..4].copy_from_slice(MAGIC);
    out[4..7].copy_from_slice(&[VERSION, codec, kind]);
    out[8..12].copy_from_slice(&to_u32(FIXED + table.len()).to_le_bytes());
    out[16..24].copy_from_slice(&PLACE.segment.to_le_bytes());
    out[24..32].copy_from_slice(&PLACE.epoch.to_le_bytes());
    out[40..44].copy_from_slice(&to_u32(stored.len()).to_le_bytes());
    out[44..48].copy_from_slice(&raw.to_le_bytes());
    out[48..52].copy_from_slice(&crc32c::crc32c_append(PLACE.seed(), stored).to_le_bytes());
    out[52..54].copy_from_slice(&entries.to_le_bytes());
    out.extend_from_slice(table);
    let crc = header_crc(PLACE.seed(), &out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(stored);
    out.resize(padded(out.len()), 0);
    out
}

proptest! {
    #[test]
    fn true_checksums_over_false_contents_are_refused_or_read(
        table in prop::collection::vec(prop_oneof![0_u8..10, any::<u8>()], 0..200),
        entries in 0_u16..20,
        stored in prop::collection::vec(any::<u8>(), 0..500),
        raw in prop_oneof![0_u32..2000, any::<u32>()],
        codec in 0_u8..4,
        kind in 0_u8..3,
    ) {
        let bytes = forged(&table, entries, &stored, raw, codec, kind);
        if let Parsed::Header(header) = Header::parse(&bytes[..PAGE], PLACE) {
            prop_assert!(header.body_is_whole(&bytes));
            header.holds(0, u64::MAX);
            if let Some(items) = header.items(&bytes) {
                let told: usize = items.iter().map(|item| item.payload.len()).sum();
                prop_assert!(told <= raw.max(to_u32(stored.len())) as usize);
            }
        }
    }

    #[test]
    fn records_come_back_whatever_the_clocks_did(items in items(), level in prop::option::of(1..4_i32)) {
        let bytes = block(&items, level);
        prop_assert_eq!(bytes.len() % PAGE, 0);
        let Parsed::Header(header) = Header::parse(&bytes[..PAGE], PLACE) else { panic!("no header") };
        prop_assert_eq!((header.size(), header.incarnation, header.commit), (bytes.len(), 2, 4096));
        let mut want = items;
        want.sort_by_key(|item| (item.stream, item.seq));
        let back = header.items(&bytes).unwrap();
        prop_assert_eq!(back.len(), want.len());
        for (a, b) in back.iter().zip(&want) {
            prop_assert_eq!((a.stream, a.seq, a.wall, a.boot, &a.payload), (b.stream, b.seq, b.wall, b.boot, &b.payload));
        }
    }

    #[test]
    fn at_another_place_or_changed_it_is_no_block(items in items(), at: usize, bit in 0_u8..8, other in 0_usize..4) {
        let mut bytes = block(&items, Some(1));
        let elsewhere = [
            Place { class: Class::Bulk, ..PLACE },
            Place { epoch: 8, ..PLACE },
            Place { segment: 4, ..PLACE },
            Place { offset: 4096, ..PLACE },
        ][other];
        prop_assert!(!matches!(Header::parse(&bytes[..PAGE], elsewhere), Parsed::Header(_)));
        let Parsed::Header(header) = Header::parse(&bytes[..PAGE], PLACE) else { panic!("no header") };
        let used = header.len + header.stored;
        bytes[at % used] ^= 1 << bit;
        match Header::parse(&bytes[..PAGE], PLACE) {
            Parsed::Header(header) => prop_assert!(header.items(&bytes).is_none()),
            Parsed::Ours => {}
            Parsed::Foreign => prop_assert!(false, "one changed bit hides whose block it was"),
        }
    }
}

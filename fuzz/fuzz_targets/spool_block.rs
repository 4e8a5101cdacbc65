//! Any bytes as a block of the spool: read as far as they go, never a panic, never more than they hold.
#![no_main]
#![allow(
    dead_code,
    reason = "parts of the spool, of which the target uses the reading half"
)]

#[path = "../../spool/src/block.rs"]
mod block;
#[path = "../../spool/src/record.rs"]
mod record;

use block::{Header, PAGE, Parsed, Place};
use libfuzzer_sys::fuzz_target;
use record::Class;

/// The checksums as the format says (`spool/src/block.rs`), over whatever is there: else nothing behind them is reached.
fn put_checksums(block: &mut [u8], epoch: u64, segment: u64) {
    let mut seed = [0_u8; 25];
    seed[0] = Class::Normal as u8;
    seed[1..9].copy_from_slice(&epoch.to_le_bytes());
    seed[9..17].copy_from_slice(&segment.to_le_bytes());
    let seed = crc32c::crc32c(&seed);
    let number =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]) as usize;
    let (len, stored) = (number(8), number(40));
    if len < 88 || len > PAGE || len + stored > block.len() {
        return;
    }
    let body = crc32c::crc32c_append(seed, &block[len..len + stored]);
    block[48..52].copy_from_slice(&body.to_le_bytes());
    let header = crc32c::crc32c_append(crc32c::crc32c_append(seed, &block[..12]), &block[16..len]);
    block[12..16].copy_from_slice(&header.to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    let mut block = data.to_vec();
    block.resize(block.len().max(PAGE), 0);
    // The place that the bytes claim, so that the first check is passed; the second is made to pass.
    let Some((segment, epoch)) = Header::claimed(&block) else {
        return;
    };
    let place = Place {
        class: Class::Normal,
        epoch,
        segment,
        offset: 0,
    };
    put_checksums(&mut block, epoch, segment);
    if let Parsed::Header(header) = Header::parse(&block[..PAGE], place) {
        header.holds(0, 1);
        if let Some(items) = header.items(&block) {
            let records: u64 = header.runs().map(|(_, _, count)| u64::from(count)).sum();
            assert_eq!(items.len() as u64, records);
        }
    }
});

//! What is rebuilt from the blocks alone, and what a slow disk may not hold up.

use super::{DIR, number, open, payload, read_all, strict};
use crate::sim::SimDisk;
use crate::{Class, Durability};
use std::path::Path;

#[test]
fn without_the_saved_state_all_is_rebuilt_from_the_blocks() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let epoch = spool.epoch();
    let stream = strict(&spool);
    // Several lives of each file, so that there are recycled bytes to be taken in by.
    for number in 1..=120 {
        let seq = stream
            .append(&payload(number, 7000), Some(("source", number)))
            .unwrap()
            .wait()
            .unwrap();
        if seq > 10 {
            stream.ack("hub", seq - 10).unwrap();
        }
    }
    drop((spool, stream));
    let mut image = disk.durable();
    for name in ["state.0", "state.1"] {
        image.insert(Path::new(DIR).join(name), vec![7; 4096]);
    }
    let (spool, recovered) = open(&SimDisk::of(image));
    assert!(
        recovered.state_damaged && recovered.lost.is_empty(),
        "{recovered:?}"
    );
    assert_eq!(spool.epoch(), epoch);
    assert_eq!(spool.position("source"), Some(120));
    let stream = strict(&spool);
    // The last cursor that a block carried along: behind, never ahead.
    let acked = stream.acked("hub");
    assert!((90..=110).contains(&acked), "{acked}");
    let records = read_all(&stream, acked);
    let numbers: Vec<u64> = records.iter().map(|record| number(&record.payload)).collect();
    assert_eq!(numbers, (acked + 1..=120).collect::<Vec<_>>());
    assert_eq!(stream.append(b"next", None).unwrap().wait().unwrap(), 121);
}

#[test]
fn an_empty_folder_after_a_loss_begins_a_new_epoch() {
    let (one, created) = open(&SimDisk::new());
    let (other, _) = open(&SimDisk::new());
    assert!(created.created);
    assert_ne!(one.epoch(), other.epoch());
    assert!(one.epoch() < 1 << 53, "exact as a JSON number");
}

#[test]
fn a_sync_that_hangs_holds_up_strict_producers_only() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = strict(&spool);
    let metrics = spool.stream("metrics", Durability::Sampled, Class::Bulk).unwrap();
    disk.hold_syncs(true);
    let pending = stream.append(&payload(1, 100), None).unwrap();
    for number in 1..=1000 {
        metrics
            .append(&payload(number, 100), None)
            .unwrap()
            .wait()
            .unwrap();
    }
    assert_eq!(read_all(&metrics, 0).len(), 1000);
    // Only what is confirmed can be read.
    assert_eq!((stream.last(), stream.read(0, 1000).unwrap().len()), (0, 0));
    disk.hold_syncs(false);
    pending.wait().unwrap();
    assert_eq!(stream.last(), 1);
}

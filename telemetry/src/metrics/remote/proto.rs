//! Protocol buffers' wire form, as far as remote write needs it (protobuf.dev, "Encoding").

use kit::varint::put;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    fn tag(&mut self, field: u64, kind: u64) {
        put(&mut self.0, field << 3 | kind);
    }

    /// A default is not written.
    pub(super) fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            put(&mut self.0, value);
        }
    }

    /// `int64`: two's complement.
    pub(super) fn int(&mut self, field: u64, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    /// `sint32`, `sint64`.
    pub(super) fn zigzag(&mut self, field: u64, value: i64) {
        self.number(field, ((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    pub(super) fn double(&mut self, field: u64, value: f64) {
        if value.to_bits() != 0 {
            self.some_double(field, value);
        }
    }

    /// Also where it is zero: in a `oneof` that says which one it is.
    pub(super) fn some_double(&mut self, field: u64, value: f64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// As above.
    pub(super) fn some_number(&mut self, field: u64, value: u64) {
        self.tag(field, VARINT);
        put(&mut self.0, value);
    }

    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, BYTES);
        put(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// A message in the message; `scratch` is used for it and left empty.
    pub(super) fn message(&mut self, field: u64, scratch: &mut Message, fill: impl FnOnce(&mut Message)) {
        scratch.0.clear();
        fill(scratch);
        self.bytes(field, &scratch.0);
    }

    pub(super) fn packed_numbers(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut inside = Vec::new();
        for value in values {
            put(&mut inside, value);
        }
        if !inside.is_empty() {
            self.bytes(field, &inside);
        }
    }

    pub(super) fn packed_doubles(&mut self, field: u64, values: &[f64]) {
        let inside: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if !inside.is_empty() {
            self.bytes(field, &inside);
        }
    }
}

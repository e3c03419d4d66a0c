//! Arbitrary bytes of a client, in arbitrary pieces: the first byte is the size of the pieces. The
//! decoder finds the same requests for every size.
#![no_main]

use bedstone_node::api::resp::Decoder;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

fn requests(wire: &[u8], step: usize) -> (Vec<Vec<Bytes>>, bool) {
    let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in wire.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => found.push(request),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

fuzz_target!(|input: &[u8]| {
    let Some((&step, wire)) = input.split_first() else { return };
    let pieces = requests(wire, usize::from(step).max(1));
    let whole = requests(wire, wire.len().max(1));
    assert_eq!(pieces.0, whole.0);
    let bytes: usize = whole.0.iter().flatten().map(Bytes::len).sum();
    assert!(bytes <= wire.len());
});

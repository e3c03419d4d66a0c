//! Arbitrary manifest bytes: decoding never panics, and a decoded edit encodes to the same bytes.
#![no_main]

use bedstone_engine::lsm::manifest::{Edit, decode_manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = decode_manifest(1, input);
    if let Some(edit) = Edit::decode(input) {
        assert_eq!(edit.encode(), input);
    }
});

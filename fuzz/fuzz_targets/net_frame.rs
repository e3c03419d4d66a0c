//! Arbitrary bytes on a stream, in arbitrary pieces: the first byte is the size of the pieces.
#![no_main]

use bedstone_net::hello::Hello;
use bedstone_net::{Frame, Lane};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&step, rest)) = input.split_first() else { return };
    for lane in [Lane::Control, Lane::Append, Lane::Bulk] {
        let mut buffer = BytesMut::new();
        'stream: for piece in rest.chunks(usize::from(step).max(1)) {
            buffer.extend_from_slice(piece);
            loop {
                match Frame::decode(&mut buffer, lane) {
                    Ok(Some(frame)) => {
                        let header = frame.header();
                        let mut again = BytesMut::from(&header[..]);
                        again.extend_from_slice(&frame.body);
                        assert_eq!(Frame::decode(&mut again, lane).unwrap(), Some(frame.clone()));
                        let _ = Hello::decode(&frame);
                    }
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
    }
});

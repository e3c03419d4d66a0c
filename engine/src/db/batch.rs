//! Batches of changes, kept as the bytes of the log entry that will contain them.

use crate::error::Result;
use crate::key::Op;
use crate::lsm::check_size;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Changes that are applied atomically and in order.
///
/// The encoding of a change is kind u8, key length u32, key, then fields that depend on the kind:
/// for 0, delete, none; for 1, put, value length u32, value; for 2, put with a deadline, deadline
/// u64, value length u32, value; for 3, delete a range, length u32 and bytes of the exclusive end
/// key.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    data: BytesMut,
    len: usize,
    /// Whether the batch contains a put.
    grows: bool,
    /// The key and value lengths of the first change over a limit, if any.
    refused: Option<(usize, usize)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` of encoded changes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { data: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.data.reserve(9 + key.len() + value.len());
        self.begin(1, key, value);
        self.grows = true;
        self.data.put_u32_le(value.len() as u32);
        self.data.put_slice(value);
    }

    /// Sets a key until a deadline, in the unit of [`Db::advance`](crate::Db::advance).
    pub fn put_until(&mut self, key: &[u8], value: &[u8], deadline: u64) {
        self.data.reserve(17 + key.len() + value.len());
        self.begin(2, key, value);
        self.grows = true;
        self.data.put_u64_le(deadline);
        self.data.put_u32_le(value.len() as u32);
        self.data.put_slice(value);
    }

    /// Deletes every key from `from` (inclusive) to `to` (exclusive). The cost is about that of
    /// deleting one key, for any number of keys. Intended for ranges and not for single keys,
    /// because deleted ranges are kept in memory until compaction has applied them.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.data.reserve(9 + from.len() + to.len());
        self.begin(3, from, &[]);
        if self.refused.is_none() && check_size(to, &[]).is_err() {
            self.refused = Some((to.len(), 0));
        }
        self.data.put_u32_le(to.len() as u32);
        self.data.put_slice(to);
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: &[u8]) {
        self.data.reserve(5 + key.len());
        self.begin(0, key, &[]);
    }

    fn begin(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        if self.refused.is_none() && check_size(key, value).is_err() {
            self.refused = Some((key.len(), value.len()));
        }
        self.len += 1;
        self.data.put_u8(kind);
        self.data.put_u32_le(key.len() as u32);
        self.data.put_slice(key);
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the batch has no changes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the batch may make the store larger: it contains a put.
    pub(super) fn grows(&self) -> bool {
        self.grows
    }

    /// The data of the log entry; an error for a change over a limit.
    pub(super) fn into_data(self) -> Result<Bytes> {
        if let Some((key, value)) = self.refused {
            check_size(&vec![0; key], &vec![0; value])?;
        }
        Ok(self.data.freeze())
    }
}

/// Decodes the changes in an entry's data; the changes share the memory of the data. `None` when
/// the data is not a batch.
pub(super) fn decode(data: &Bytes) -> Option<Vec<Op>> {
    let mut from = data.clone();
    let mut ops = Vec::new();
    let take = |from: &mut Bytes| {
        let len = from.try_get_u32_le().ok()? as usize;
        (len <= from.len()).then(|| from.split_to(len))
    };
    while !from.is_empty() {
        let kind = from.get_u8();
        let key = take(&mut from)?;
        ops.push(match kind {
            0 => Op::Delete(key),
            1 => Op::Put(key, take(&mut from)?),
            2 => {
                let deadline = from.try_get_u64_le().ok()?;
                Op::PutUntil(key, take(&mut from)?, deadline)
            }
            3 => Op::DeleteRange(key, take(&mut from)?),
            _ => return None,
        });
    }
    Some(ops)
}

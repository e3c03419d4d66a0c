//! Pins the bytes of every structure on disk and on the wire. A change of these bytes is a change
//! of a format: raise the version of the format, and begin the commit's message with `Format:`.

use bedstone_engine::disk::Pages;
use bedstone_engine::disk::memory::MemoryDisk;
use bedstone_engine::engine::Superblock;
use bedstone_engine::key::{NEVER, Value, Version};
use bedstone_engine::limits::{Codec, Limits};
use bedstone_engine::lsm::bounds::Bounds;
use bedstone_engine::lsm::manifest::{Edit, TreeState};
use bedstone_engine::lsm::ranges::RangeTombstone;
use bedstone_engine::lsm::{HistoryItem, SnapshotHead};
use bedstone_engine::table::{TableMeta, TableWriter, filter};
use bedstone_engine::values::file::ValueWriter;
use bedstone_engine::values::{Pointer, Source, value_crc};
use bedstone_engine::wal::format::{SegmentHeader, encode_block};
use bedstone_engine::wal::{Entry, EntryKind, HardState, Record, Vote};
use bedstone_engine::{Index, LogId, Lsn, ReplicaId, ShardId, Term};
use bedstone_net::hello::Hello;
use bedstone_net::{Frame, Lane, NodeId};
use bedstone_node::machine::argument::Key;
use bedstone_node::machine::command::{Command, Write, encode_batch};
use bedstone_node::machine::options::{Expiry, SetOptions};
use bedstone_node::machine::reply::Reply;
use bedstone_node::machine::sessions::{Answer, Session, Table};
use bedstone_node::machine::value::Stored;
use bedstone_node::raft::conf::MemberChange;
use bedstone_node::raft::{Body, Change, Conf, Message};
use bedstone_node::wire::{
    Address, Forwarded, Replied, RequestId, SnapshotOutcome, Transfer, encode_raft, put_coalesced,
};
use bedstone_node::{bootstrap, line_file};
use bytes::{Bytes, BytesMut};

/// The bytes as hexadecimal, 32 bytes to a line, without the zeros at the end.
fn hex(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
    let lines = bytes[..end].chunks(32);
    let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let text: Vec<String> = lines.map(line).collect();
    format!("{} bytes\n{}\n", bytes.len(), text.join("\n"))
}

const ID: LogId = LogId { term: Term(2), index: Index(5) };

fn structures() -> Vec<(&'static str, Vec<u8>)> {
    let mut pages = Pages::default();
    SegmentHeader::new(7, 3, Lsn(4096), 0xABCD, 2).encode(&mut pages);
    let header = pages.as_blocks().to_vec();
    pages.clear();
    let records = [
        Record::entries(
            ShardId(1),
            ID,
            [(EntryKind::COMMANDS, Bytes::from_static(b"hello")), (EntryKind::NOOP, Bytes::new())],
        )
        .unwrap(),
        Record::HardState {
            shard: ShardId(1),
            state: HardState { term: Term(2), vote: Vote::For(ReplicaId(3)), commit: Index(4) },
        },
        Record::Release { shard: ShardId(1), upto: ID },
        Record::Reset { shard: ShardId(1), at: ID },
        Record::Forget { shard: ShardId(4) },
        Record::Bounds {
            shard: ShardId(1),
            base: LogId { term: Term(1), index: Index(2) },
            last: ID,
        },
        Record::Members {
            shard: ShardId(1),
            index: Index(5),
            members: Bytes::from_static(b"members"),
        },
    ];
    encode_block(&mut pages, 9, Lsn(8192), Lsn(4096), 0xABCD, &records);
    let block = pages.as_blocks().to_vec();
    let disk = MemoryDisk::new();
    let mut writer = TableWriter::create(&disk, "t".into(), 6, &Limits::TINY, Codec::Lz4).unwrap();
    let pointer = |source| Value::At(Pointer::to(b"key3", b"blue", source, 9));
    let red = Value::Inline(Bytes::from_static(b"red"));
    let values = [red, Value::Tombstone, pointer(Source::Log(3)), pointer(Source::File(4))];
    for (i, value) in (1..).zip(values) {
        let expires = if i % 2 == 0 { NEVER } else { 70 + i };
        writer.add(&Version { key: format!("key{i}").into(), ts: i, expires, value }).unwrap();
    }
    writer.finish().unwrap();
    let mut values = ValueWriter::create(&disk, "v".into(), 6).unwrap();
    values.add(b"key", b"value", value_crc(b"key", b"value")).unwrap();
    values.finish().unwrap();
    let key = Bytes::from_static(b"k");
    let (smallest, largest) = (key.clone(), key.clone());
    let meta =
        TableMeta { number: 2, seed: 3, ts: Some(7), bytes: 9, smallest, largest, ts_max: 4 };
    let range = RangeTombstone { from: key.clone(), to: Bytes::from_static(b"z"), ts: 8 };
    let bounds = Bounds { from: key.clone(), to: Some(key) };
    let state =
        TreeState { flushed: ID, ts_max: 3, now: 5, history_from: 2, next_number: 4, bounds };
    let (added, deleted) = (vec![(1, meta)], vec![(1, vec![range])]);
    let edit = Edit { state, removed: vec![1], added, deleted };
    let superblock = Superblock { store: 7, segment_bytes: 65536, owner: "node 1".into() };
    let frame = Frame { lane: Lane::Control, kind: 3, shard: 1, body: Bytes::from_static(b"hi") };
    let set = Write::Set {
        key: Key(Bytes::from_static(b"k")),
        stored: Stored::plain(Bytes::from_static(b"v")).encode(),
        options: SetOptions::default(),
        expiry: Expiry::In(1000),
    };
    let mut forwarded = BytesMut::new();
    let request = Forwarded {
        id: RequestId(1),
        left: 5000,
        resp3: true,
        command: Command::Write(set.clone()),
    };
    request.encode(&mut forwarded);
    let mut replied = BytesMut::new();
    Replied { id: RequestId(1), answer: Some(Bytes::from_static(b"+OK\r\n")) }.encode(&mut replied);
    let entry = Entry { id: ID, kind: EntryKind::COMMANDS, data: Bytes::from_static(b"x") };
    let previous = LogId { term: Term(2), index: Index(4) };
    let message = |body| {
        encode_raft(ReplicaId(3), &Message { peer: ReplicaId(2), term: Term(2), body }).to_vec()
    };
    let change = Change::Steps {
        steps: vec![
            MemberChange::AddVoter(ReplicaId(4).into()),
            MemberChange::Remove(ReplicaId(1)),
        ],
        explicit: true,
    };
    let conf = Conf::of([1, 2, 3].map(ReplicaId)).apply(&change).unwrap();
    let mut members = Vec::new();
    conf.encode(&mut members);
    let mut beats = BytesMut::new();
    let body = Body::HeartbeatReply { round: 4 };
    put_coalesced(
        &mut beats,
        ShardId(1),
        ReplicaId(3),
        &Message { peer: ReplicaId(2), term: Term(2), body },
    );
    let session = Session { request: 4, used: 7, answer: Answer::of(&Reply::Int(6)) };
    let address = Address { from: ReplicaId(3), to: ReplicaId(2) };
    let head = SnapshotHead { at: ID, ts: 3, history_from: 2, now: 1 };
    let version = |expires, value| {
        HistoryItem::Version(Version { key: Bytes::from_static(b"k"), ts: 3, expires, value })
    };
    let value = || Value::Inline(Bytes::from_static(b"v"));
    let range = RangeTombstone { from: "k".into(), to: "l".into(), ts: 3 };
    let items = vec![
        HistoryItem::Range(range),
        version(NEVER, value()),
        version(9, value()),
        version(NEVER, Value::Tombstone),
    ];
    vec![
        ("log segment header", header),
        ("log commit block", block),
        ("table", disk.bytes("t").unwrap()),
        ("value file", disk.bytes("v").unwrap()),
        ("filter", filter::build(vec![1, 2, 3])),
        ("manifest edit", edit.encode()),
        ("superblock", superblock.encode()),
        (
            "first members",
            line_file::framed(&bootstrap::encode(&Conf::of([1, 2, 3].map(ReplicaId)))).into(),
        ),
        ("boot", line_file::framed("1b4e28ba-2fa1-11d2-883f-0016d3cca427").into()),
        ("net frame", [&frame.header()[..], &frame.body].concat()),
        ("net hello", Hello::new(NodeId(1), 2, "dev").frame().body.to_vec()),
        ("command batch", encode_batch(1, 7 << 16, [&set]).to_vec()),
        ("stored value", Stored { deadline: 9, value: Bytes::from_static(b"v") }.encode().to_vec()),
        ("forwarded request", forwarded.to_vec()),
        ("reply", replied.to_vec()),
        ("raft pre-vote", message(Body::PreVote { last: ID })),
        ("raft pre-vote reply", message(Body::PreVoteReply { granted: true, committed: ID })),
        ("raft vote", message(Body::Vote { last: ID, leader_transfer: false })),
        ("raft vote, handed over", message(Body::Vote { last: ID, leader_transfer: true })),
        ("raft vote reply", message(Body::VoteReply { granted: false, committed: ID })),
        (
            "raft append",
            message(Body::Append { previous, entries: vec![entry].into(), commit: Index(3) }),
        ),
        ("raft append reply", message(Body::AppendReply { matched: Index(5) })),
        ("raft append refused", message(Body::AppendRefused { hint: ID, refused: Index(9) })),
        (
            "raft heartbeat",
            message(Body::Heartbeat { committed: previous, round: 4, acknowledged: ID }),
        ),
        ("raft heartbeat reply", message(Body::HeartbeatReply { round: 4 })),
        ("raft time out now", message(Body::TimeoutNow)),
        ("raft read index", message(Body::ReadIndex { query_id: 5 })),
        ("raft read index reply", message(Body::ReadIndexReply { query_id: 5, at: ID })),
        ("raft rest", message(Body::Quiesce { at: ID })),
        ("raft wake", message(Body::Unquiesce)),
        ("raft recover", message(Body::Recover { query_id: 5, lost: true })),
        (
            "raft recover reply",
            message(Body::RecoverReply {
                query_id: 5,
                new: false,
                last: ID,
                commit: Index(3),
                conf: Conf::of([1, 2].map(ReplicaId)).into(),
            }),
        ),
        ("beats", beats.to_vec()),
        ("session", session.encode().to_vec()),
        ("table of sessions", Table { open: 2, last: 5 }.encode().to_vec()),
        ("request of a session", encode_batch(1, 7 << 16, [&set.once(3, 4)]).to_vec()),
        ("change of members", change.encode().to_vec()),
        ("members", members),
        (
            "snapshot begin",
            Transfer::Begin { id: 1, term: Term(2), version: 1, head }.encode(address).1.to_vec(),
        ),
        ("snapshot chunk", Transfer::Chunk { id: 1, number: 0, items }.encode(address).1.to_vec()),
        ("snapshot end", Transfer::End { id: 1, chunks: 1 }.encode(address).1.to_vec()),
        (
            "snapshot ack",
            Transfer::Ack { id: 1, chunks: 1, outcome: SnapshotOutcome::InProgress }
                .encode(address)
                .1
                .to_vec(),
        ),
    ]
}

#[test]
fn every_structure_has_its_pinned_bytes() {
    let found: String =
        structures().iter().map(|(name, bytes)| format!("{name}: {}", hex(bytes))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/formats.txt");
    if std::env::var_os("BEDSTONE_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/golden")).unwrap();
        std::fs::write(path, &found).unwrap();
    }
    let pinned = std::fs::read_to_string(path).unwrap_or_default();
    for (found, pinned) in found.lines().zip(pinned.lines()) {
        assert_eq!(found, pinned);
    }
    assert_eq!(found.len(), pinned.len());
}

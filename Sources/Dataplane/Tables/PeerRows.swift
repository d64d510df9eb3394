import PacketIO

/// Peers' rows, each on a cache line of its own: what leads a packet to its peer is fetched with one access.
struct PeerRows: ~Copyable {
  struct Row: BitwiseCopyable {
    var entry: Snapshot.PeerEntry
    private let padding: (UInt64, UInt64) = (0, 0)

    init(_ entry: Snapshot.PeerEntry) { self.entry = entry }
  }

  private var rows: FixedArray<Row>

  init(capacity: Int) { rows = FixedArray(capacity: capacity) }

  @inline(__always) var count: Int { rows.count }

  @inline(__always) subscript(_ row: Int) -> Snapshot.PeerEntry { rows[row].entry }

  /// Where a row is, for whoever hands it on: copying it costs more than looking there.
  @inline(__always) borrowing func reference(_ row: Int) -> StateReference<Row> { rows.reference(row) }

  mutating func append(_ entry: Snapshot.PeerEntry) { rows.append(Row(entry)) }

  borrowing func replace(_ row: Int, by entry: Snapshot.PeerEntry) { rows.reference(row).value.entry = entry }

  /// Has the processor fetch a row; nothing for one out of range.
  @inline(__always) borrowing func prefetch(_ row: Int) { rows.prefetch(row) }
}

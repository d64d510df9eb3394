package import PacketIO

/// What a pipeline works with for the length of a call: the tables in force, the memory that packets lie in, the time.
package struct Turn {
  package var tables: Snapshot
  package let pool: BufferPool
  package var now: MonotonicTime

  package init(tables: Snapshot, pool: BufferPool, now: MonotonicTime) {
    self.tables = tables
    self.pool = pool
    self.now = now
  }
}

import CLinux

extension Descriptor {
  /// Locks `length` bytes for this opening of the file alone; false: somebody else has some of them. Other locks of the
  /// file have nothing to do with these.
  package func lock(at offset: Int, length: Int) -> Bool { culvert_lock_range(raw, offset, length, 1) == 0 }

  /// Gives back what `lock(at:length:)` took.
  package func unlock(at offset: Int, length: Int) { _ = culvert_lock_range(raw, offset, length, 0) }

  /// When the file was made, in nanoseconds since 1970, which a copy does not take along and nobody can set; nil where
  /// the file system does not know.
  package var birth: UInt64? {
    let birth = culvert_birth(raw)
    return birth == 0 ? nil : birth
  }
}

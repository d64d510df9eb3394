/// Memory for system calls, page-aligned, with checked access.
@safe final class LabBuffer: @unchecked Sendable {
  private let memory: UnsafeMutableRawBufferPointer
  var count: Int { unsafe memory.count }

  init(count: Int) {
    unsafe memory = .allocate(byteCount: count, alignment: 4096)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { unsafe memory.deallocate() }

  @unsafe func slice(_ offset: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
    precondition(offset >= 0 && count >= 0 && offset + count <= self.count)
    return unsafe UnsafeMutableRawBufferPointer(rebasing: memory[offset..<offset + count])
  }

  /// Host byte order.
  func load64(_ offset: Int) -> UInt64 { unsafe slice(offset, 8).loadUnaligned(as: UInt64.self) }
  func store64(_ value: UInt64, _ offset: Int) { unsafe slice(offset, 8).storeBytes(of: value, as: UInt64.self) }
  func bytes(_ offset: Int, _ count: Int) -> [UInt8] { unsafe Array(slice(offset, count)) }
  func store(_ bytes: [UInt8], _ offset: Int = 0) { unsafe slice(offset, bytes.count).copyBytes(from: bytes) }
}

extension StreamDigest {
  mutating func update(_ buffer: LabBuffer, _ offset: Int, _ count: Int) {
    unsafe update(UnsafeRawBufferPointer(buffer.slice(offset, count)))
  }
}

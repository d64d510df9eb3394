import Glibc

/// Secret bytes: zeroed when the last user lets go, compared in constant time, never printed, and in memory that is
/// neither swapped nor dumped.
@safe public final class KeyMaterial: Sendable {
  // Written once, before anybody else can see it.
  private nonisolated(unsafe) let base: UnsafeMutableRawPointer
  public let count: Int

  public init(_ bytes: [UInt8]) {
    count = bytes.count
    unsafe base = allocateState(bytes: bytes.count)
    unsafe base.copyMemory(from: bytes, byteCount: bytes.count)
  }

  deinit {
    unsafe explicit_bzero(base, count)
    unsafe freeState(base, bytes: count)
  }

  /// Lends the bytes for the length of a call.
  public func withBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    try unsafe body(UnsafeRawBufferPointer(start: base, count: count))
  }
}

extension KeyMaterial {
  /// `count` bytes from `offset`, both within.
  package func slice(_ offset: Int, _ count: Int) -> KeyMaterial {
    unsafe withBytes { bytes in
      var part = unsafe [UInt8](bytes[offset..<offset + count])
      return KeyMaterial(taking: &part)
    }
  }

  /// One behind the other.
  package convenience init(joining parts: [KeyMaterial]) {
    var bytes: [UInt8] = []
    // Nothing may be left behind where an array has grown.
    bytes.reserveCapacity(parts.reduce(0) { $0 + $1.count })
    for part in parts { unsafe part.withBytes { unsafe bytes.append(contentsOf: $0) } }
    self.init(taking: &bytes)
  }

  /// A copy, which whoever asks for it wipes.
  package func copy() -> [UInt8] { unsafe withBytes { unsafe [UInt8]($0) } }

  /// Four bytes from `offset` as they stand in memory, within.
  package func word(_ offset: Int) -> UInt32 {
    unsafe withBytes { unsafe $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
  }

  /// Copies the bytes and zeroes the originals.
  package convenience init(taking bytes: inout [UInt8]) {
    self.init(bytes)
    unsafe bytes.withUnsafeMutableBytes { memory in
      if let base = memory.baseAddress { unsafe explicit_bzero(base, memory.count) }
    }
    bytes = []
  }
}

extension KeyMaterial {
  /// Key and salt in hexadecimal: in the clear, and for the operator who asks for it only.
  package var hexadecimal: String {
    unsafe withBytes { bytes in
      unsafe bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
  }
}

extension KeyMaterial: Equatable {
  public static func == (a: KeyMaterial, b: KeyMaterial) -> Bool {
    guard a.count == b.count else { return false }
    var difference: UInt8 = 0
    for i in 0..<a.count {
      unsafe difference |=
        a.base.load(fromByteOffset: i, as: UInt8.self) ^ b.base.load(fromByteOffset: i, as: UInt8.self)
    }
    return difference == 0
  }
}

extension KeyMaterial: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  public var description: String { "<\(count) secret bytes>" }
  public var debugDescription: String { description }
  public var customMirror: Mirror { Mirror(self, children: []) }
}

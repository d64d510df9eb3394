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

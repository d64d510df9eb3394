import PacketIO

extension KeyMaterial {
  /// `count` bytes from `offset`, both within.
  func slice(_ offset: Int, _ count: Int) -> KeyMaterial {
    unsafe withBytes { bytes in
      var part = unsafe [UInt8](bytes[offset..<offset + count])
      return KeyMaterial(taking: &part)
    }
  }

  /// One behind the other.
  convenience init(joining parts: [KeyMaterial]) {
    var bytes: [UInt8] = []
    // Nothing may be left behind where an array has grown.
    bytes.reserveCapacity(parts.reduce(0) { $0 + $1.count })
    for part in parts { unsafe part.withBytes { unsafe bytes.append(contentsOf: $0) } }
    self.init(taking: &bytes)
  }
}

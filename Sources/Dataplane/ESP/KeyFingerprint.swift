import COpenSSL
package import PacketIO

/// The SHA-256 of key material: recognises a key that was used before, and reveals nothing of it.
package struct KeyFingerprint: Hashable, Sendable {
  /// The digest's words, the first byte the most significant.
  private let words: (UInt64, UInt64, UInt64, UInt64)

  fileprivate init(_ bytes: [UInt8]) {
    func word(_ index: Int) -> UInt64 { bytes[index * 8..<index * 8 + 8].reduce(0) { $0 << 8 | UInt64($1) } }
    words = (word(0), word(1), word(2), word(3))
  }

  /// The first eight bytes as a number.
  var tag: UInt64 { words.0 }

  /// 32 bytes.
  package var bytes: [UInt8] {
    [words.0, words.1, words.2, words.3].flatMap { word in
      (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * $0)) }
    }
  }

  package static func == (a: KeyFingerprint, b: KeyFingerprint) -> Bool { a.words == b.words }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(words.0)
    hasher.combine(words.1)
  }
}

extension KeyMaterial {
  package var fingerprint: KeyFingerprint {
    var digest = [UInt8](repeating: 0, count: 32)
    unsafe withBytes { key in
      _ = unsafe EVP_Digest(key.baseAddress, key.count, &digest, nil, EVP_sha256(), nil)
    }
    return KeyFingerprint(digest)
  }
}

import COpenSSL

/// The SHA-256 of key material: recognises a key that was used before, and reveals nothing of it.
package struct KeyFingerprint: Hashable, Sendable {
  /// 32 bytes.
  package let bytes: [UInt8]

  fileprivate init(_ bytes: [UInt8]) { self.bytes = bytes }
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

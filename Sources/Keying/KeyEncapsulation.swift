public import PacketIO

/// A key encapsulation mechanism, which the embedder has of a library of its own choice.
public protocol KeyEncapsulation: Sendable {
  /// As KEM_LIST and KEM_PART name it.
  var mechanism: UInt8 { get }
  /// Bytes of a public key.
  var keyLength: Int { get }
  /// Bytes of a ciphertext.
  var ciphertextLength: Int { get }

  /// A new key pair: what goes to the peer, and what opens the answer.
  func makeKey() -> (publicKey: [UInt8], open: @Sendable ([UInt8]) -> KeyMaterial?)
  /// A secret of 32 bytes for whoever has the private key.
  /// - Returns: nil: the key is none.
  func encapsulate(to publicKey: [UInt8]) -> (ciphertext: [UInt8], secret: KeyMaterial)?
}

/// Whether a peer's keys withstand a quantum computer that reads what is recorded today.
public enum PostQuantumMode: String, Sendable, CaseIterable {
  /// With peers that can; the others get along without.
  case preferred
  /// No packet goes before.
  case required
  case off
}

/// The most that a train of sealed datagrams can be.
package enum SealedTrain {
  /// Datagrams that a UDP GSO send takes (Linux: UDP_MAX_SEGMENTS).
  package static let segments = 128
  /// Bytes of the largest UDP payload over IPv4.
  package static let bytes = 65507
}

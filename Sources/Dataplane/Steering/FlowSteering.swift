import PacketIO

/// Tells a worker whose packet this is, where there are several.
///
/// Fragments pass worker 0, and go on from there to the owner of their datagram's flow: so a fragment may be overtaken
/// by packets of its flow that are none.
struct FlowSteering: BitwiseCopyable {
  let worker: Int
  /// Workers less one.
  let mask: UInt32
  /// Of use with worker 0.
  let fragments: StateReference<FragmentOwners>

  /// - Parameter translation: nil for packets from this side's hosts, whose addresses are those of this side already.
  @inline(__always)
  func owner(
    _ packet: InnerPacket, _ bytes: PacketBytes, _ translation: StateReference<PrefixTranslation>? = nil
  ) -> Int {
    guard !packet.isFragment else { return ownerOfFragment(packet, bytes, translation) }
    return FlowOwner.owner(packet, bytes, mask: mask, translation: translation)
  }

  @inline(never)
  private func ownerOfFragment(
    _ packet: InnerPacket, _ bytes: PacketBytes, _ translation: StateReference<PrefixTranslation>?
  ) -> Int {
    guard worker == 0 else { return 0 }
    return fragments.value.owner(packet, bytes) {
      FlowOwner.owner(packet, bytes, mask: mask, translation: translation)
    }
  }
}

/// An opened packet that another worker delivers.
struct ForeignPacket: BitwiseCopyable {
  let owner: Int32
  let peer: Int32
  let buffer: BufferID
  let offset: Int32
  let length: Int32
}

import Dataplane
import PacketIO

/// The header in front of each packet from a TUN device: what is read can be written, and reads back the same.
let virtioNetHeader = FuzzTarget(name: "VirtioNetHeader") { input in
  withPacketBytes(input) { bytes in
    guard let first = VirtioNetHeader.parse(bytes) else { return }
    require((first.offload.segmentation == .none) == (first.gsoSize == 0), "segments of no size, or a size without any")
    VirtioNetHeader.write(first.offload, gsoSize: first.gsoSize, headerLength: first.headerLength, to: bytes)
    guard let second = VirtioNetHeader.parse(bytes) else { return require(false, "\(first) does not read back") }
    require(first == second, "\(first) reads back as \(second)")
  }
}

import Dataplane
import PacketIO

/// Messages between the two ends of a tunnel, from a peer that turned evil: what is read can be written, and reads
/// back the same.
let controlMessage = FuzzTarget(name: "ControlMessage") { input in
  withPacketBytes(input) { bytes in
    guard let first = ControlMessage.parse(bytes) else { return }
    let body = first.body.array()
    ControlMessage.write(type: first.type, body: body, to: bytes)
    guard let second = ControlMessage.parse(bytes) else {
      return require(false, "type \(first.type) does not read back")
    }
    require(second.type == first.type && second.body.array() == body, "type \(first.type) reads back otherwise")
  }
}

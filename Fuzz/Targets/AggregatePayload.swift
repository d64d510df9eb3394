import PacketIO

@testable import Dataplane

/// AGGFRAG payloads from a peer that turned evil: the blocks follow each other without a gap from where the header says
/// to the end, and each is as long as its own header says.
let aggregatePayload = FuzzTarget(name: "AggregatePayload") { input in
  withPacketBytes(input) { bytes in
    guard var payload = AggregatePayload(bytes) else {
      return require(
        input.count < 4 || input[0] > 1 || input[0] == 1 && input.count < 24, "a payload with a known header is refused"
      )
    }
    let header = input[0] == 1 ? 24 : 4
    let offset = Int(input[2]) << 8 | Int(input[3])
    require(payload.continuation == (header, min(offset, input.count - header)), "\(payload.continuation)")
    require(payload.continues == (offset > input.count - header), "what continues ends, or the other way round")
    var place = header + payload.continuation.length
    require(
      payload.isPadding == (offset == 0 && (place == input.count || input[place] < 16)), "padding is mistaken")
    while let block = payload.nextBlock() {
      switch block {
      case .packet(let start, let length):
        let isV4 = input[place] >> 4 == 4
        let field = isV4 ? 2 : 4
        let told = (Int(input[place + field]) << 8 | Int(input[place + field + 1])) + (isV4 ? 0 : 40)
        require(start == place && length == told && length >= 20, "a packet of \(length) bytes at \(start)")
        place += length
      case .beginning(let start, let length):
        require(start == place && length == input.count - place && length > 0, "a beginning at \(start)")
        place = input.count
      case .padding:
        require(input[place] < 16, "padding of version \(input[place] >> 4)")
        place = input.count
      case .malformed: place = input.count
      }
    }
    require(place == input.count, "ends at \(place) of \(input.count)")
  }
}

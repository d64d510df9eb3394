import CLinux
import Glibc
import Synchronization

@testable import Lab

/// Numbered UDP datagrams of many sizes whose every byte is checked where they arrive.
struct VerifiedFlood: Sendable {
  struct Result: Sendable, Equatable {
    var sent = 0
    var received = 0
    var duplicates = 0
    var altered = 0
    /// One digest over the datagrams' contents in the order of their numbers, at each end.
    var sentDigest: UInt64 = 0
    var receivedDigest: UInt64 = 0
    var isIntact: Bool {
      sent > 0 && received == sent && duplicates == 0 && altered == 0 && sentDigest == receivedDigest
    }
  }

  var from: Namespace
  var to: Namespace
  var address: String
  /// What the receiver calls the address, where that is something else.
  var addressThere: String?
  var count: Int
  /// Datagrams a second.
  var rate = 4000.0
  /// Datagrams under way at most: all floods together that share a queue on the way have less than it takes.
  var window = 128
  private let payloads: [[UInt8]]

  /// - Parameter sizes: payload bytes, 8 or more each; used in turn.
  init(from: Namespace, to: Namespace, address: String, addressThere: String? = nil, sizes: [Int], count: Int) {
    self.addressThere = addressThere
    self.from = from
    self.to = to
    self.address = address
    self.count = count
    payloads = sizes.map(Pings.payload)
  }

  func run() async throws -> Result {
    let flood = self
    let receiver = try await to.inside { () throws -> Socket in
      let socket = try Socket(.datagram, isV6: flood.address.contains(":"))
      try socket.setReceiveBuffer(8 << 20)
      try socket.bind(Lab.Endpoint(flood.addressThere ?? flood.address, port: 0))
      try socket.setTimeout(0.5)
      return socket
    }
    let over = Shared(Atomic(false))
    let arrived = Shared(Atomic(0))
    let receiving = LabThread(name: "flood in") { flood.receive(on: receiver, over, arrived) }
    defer { over.value.store(true, ordering: .releasing) }
    let digest = try await from.inside { try flood.send(to: receiver.port, arrived) }
    over.value.store(true, ordering: .releasing)
    var result = try await receiving.value
    result.sent = count
    result.sentDigest = digest
    return result
  }

  /// - Returns: the digest of all that was sent.
  private func send(to port: UInt16, _ arrived: Shared<Atomic<Int>>) throws -> UInt64 {
    culvert_set_timer_slack(1000)
    let endpoint = try Lab.Endpoint(address, port: port)
    let socket = try Socket(.datagram, isV6: endpoint.isV6)
    try socket.connect(endpoint)
    let buffer = LabBuffer(count: 1 << 16)
    var digests = StreamDigest()
    let begin = monotonicSeconds()
    var lost = 0
    for number in 0..<count {
      let bytes = content(number)
      buffer.store(bytes)
      pause(until: begin + Double(number) / rate)
      waitForRoom(number, arrived, &lost)
      let n = socket.send(buffer, 0, bytes.count)
      if n < 0 { throw LabError.system("send a datagram of \(bytes.count) bytes", Int32(-n)) }
      digests.update(bytes)
    }
    return digests.value
  }

  /// So that a machine which is busy with something else drops nothing. What has not come for a while is lost.
  private func waitForRoom(_ number: Int, _ arrived: Shared<Atomic<Int>>, _ lost: inout Int) {
    var last = (arrived.value.load(ordering: .relaxed), monotonicSeconds())
    while case let now = arrived.value.load(ordering: .relaxed), number - now - lost >= window {
      if now != last.0 { last = (now, monotonicSeconds()) }
      if monotonicSeconds() - last.1 > 0.5 {
        lost = number - now
        return
      }
      pause(until: monotonicSeconds() + 0.0005)
    }
  }

  private func receive(
    on socket: Socket, _ over: Shared<Atomic<Bool>>, _ arrived: Shared<Atomic<Int>>
  ) -> Result {
    let buffer = LabBuffer(count: 1 << 16)
    var contents = [[UInt8]?](repeating: nil, count: count)
    var result = Result()
    while true {
      let n = socket.receive(buffer)
      if n < 0 {
        if over.value.load(ordering: .acquiring) { break }
        continue
      }
      let bytes = buffer.bytes(0, n)
      guard n >= 8, case let number = Int(truncatingIfNeeded: buffer.load64(0)), contents.indices.contains(number)
      else {
        result.altered += 1
        continue
      }
      if contents[number] != nil {
        result.duplicates += 1
      } else {
        result.received += 1
        arrived.value.add(1, ordering: .relaxed)
        contents[number] = bytes
        if bytes != content(number) { result.altered += 1 }
      }
      if result.received == count { break }
    }
    var digests = StreamDigest()
    for bytes in contents { digests.update(bytes ?? []) }
    result.receivedDigest = digests.value
    return result
  }

  private func content(_ number: Int) -> [UInt8] {
    var bytes = payloads[number % payloads.count]
    for i in 0..<8 { bytes[i] = UInt8(truncatingIfNeeded: number >> (8 * i)) }
    return bytes
  }
}

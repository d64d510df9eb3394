import Glibc
import Testing

@testable import Lab

/// One ICMP echo after the other, each of its own size and with its own bytes; every answer is compared.
struct Pings: Sendable {
  var from: Namespace
  var to: String
  /// The address to send from; nil: the kernel's choice.
  var source: String?
  /// Seconds to wait for an answer.
  var patience = 1.0

  init(from: Namespace, to: String, source: String? = nil) {
    self.from = from
    self.to = to
    self.source = source
  }

  /// Sends echo requests with payloads of these sizes, 0 to 65507 bytes.
  /// - Returns: what was wrong: no answer, or an answer with other bytes. Empty: nothing.
  func run(_ sizes: [Int]) throws -> [String] {
    let pings = self
    return try from.inside { try pings.ask(sizes) }
  }

  /// The same without blocking the caller's thread.
  func run(_ sizes: [Int]) async throws -> [String] {
    let pings = self
    return try await from.inside { try pings.ask(sizes) }
  }

  private func ask(_ sizes: [Int]) throws -> [String] {
    let endpoint = try Lab.Endpoint(to, port: 0)
    let socket = try Socket(.echo, isV6: endpoint.isV6)
    if let source { try socket.bind(Lab.Endpoint(source, port: 0)) }
    try socket.connect(endpoint)
    try socket.setTimeout(patience)
    try socket.setReceiveBuffer(1 << 20)
    let request = LabBuffer(count: 8 + 65536)
    let answer = LabBuffer(count: 8 + 65536)
    var problems: [String] = []
    for (number, size) in sizes.enumerated() {
      let payload = Pings.payload(size)
      let header: [UInt8] = [endpoint.isV6 ? 128 : 8, 0, 0, 0, 0, 0, UInt8(number >> 8 & 255), UInt8(number & 255)]
      request.store(header + payload)
      let sent = socket.send(request, 0, 8 + size)
      if sent < 0 {
        problems.append("\(size) bytes: \(System.words(Int32(-sent)))")
        continue
      }
      while true {
        let n = socket.receive(answer)
        if n == -Int(EINTR) { continue }
        if n < 0 {
          problems.append("\(size) bytes: no answer")
          break
        }
        // An answer that came after its time, or an error message.
        if n < 8 || answer.bytes(6, 2) != Array(header[6...]) { continue }
        if answer.bytes(8, n - 8) != payload { problems.append("\(size) bytes: came back altered") }
        break
      }
    }
    return problems
  }

  static func payload(_ size: Int) -> [UInt8] {
    var random = SplitMix64(seed: UInt64(size))
    var bytes: [UInt8] = []
    bytes.reserveCapacity(size + 8)
    while bytes.count < size {
      let word = random.next()
      for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift))) }
    }
    return Array(bytes.prefix(size))
  }
}

extension Pings {
  /// Expects all of them to come back as they were.
  func expectAnswers(_ sizes: [Int] = [56], sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let problems: [String] = try await run(sizes)
    #expect(problems == [], "\(from.label) to \(to)", sourceLocation: sourceLocation)
  }
}

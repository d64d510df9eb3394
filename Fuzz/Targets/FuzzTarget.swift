// The fuzzing program: libFuzzer calls in here, and CULVERT_FUZZ_TARGET names the parser that gets the bytes.
// To add a target: one file beside this one, one line in the list below, and a corpus in Fuzz/Corpora/NAME.
import Foundation

/// One parser under attack. `body` returns for every input, or the input is a finding.
struct FuzzTarget: Sendable {
  let name: String
  let body: @Sendable ([UInt8]) -> Void
}

let targets = [
  addressMessages,
  aggregatePayload,
  controlMessage,
  dnsMessages,
  endpointText,
  enrolmentMessage,
  firewallPacket,
  firewallRules,
  fit,
  gatewayFileText,
  hairpinMessage,
  hairpinTicket,
  hairpinTicketFile,
  hipPackets,
  identityRelay,
  identityTicket,
  inboundPipeline,
  innerPacket,
  keyExchange,
  nodeInbound,
  outboundPipeline,
  packetFile,
  policyUpdate,
  prefixText,
  probeBodies,
  relayPolicyText,
  relayRecords,
  relayStreams,
  streamReads,
  tlsStreams,
  translatedPackets,
  udpControl,
  udpDatagrams,
  udpErrors,
  virtioNetHeader,
  webRequests,
]

private let chosen: FuzzTarget = {
  let name = ProcessInfo.processInfo.environment["CULVERT_FUZZ_TARGET"] ?? ""
  guard let target = targets.first(where: { $0.name == name }) else {
    let names = targets.map(\.name).joined(separator: ", ")
    FileHandle.standardError.write(Data("set CULVERT_FUZZ_TARGET to one of \(names), not '\(name)'\n".utf8))
    _exit(2)
  }
  return target
}()

@c(LLVMFuzzerTestOneInput)
public func testOneInput(_ base: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  chosen.body(Array(UnsafeBufferPointer(start: base, count: count)))
  return 0
}

/// Ends the run with a message; libFuzzer keeps the input that led here.
func require(_ condition: Bool, _ message: @autoclosure () -> String) {
  if !condition { fatalError(message()) }
}

/// What the programs make of a file's bytes: text in which anything that is not UTF-8 became U+FFFD.
func text(_ input: [UInt8]) -> String { String(decoding: input, as: UTF8.self) }

/// An input that is taken apart from the front. What is not there reads as zero.
struct FuzzInput {
  private var bytes: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

  var isEmpty: Bool { bytes.isEmpty }

  mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }

  /// Two bytes, the more significant first.
  mutating func number() -> Int { Int(byte()) << 8 | Int(byte()) }

  /// The next `count` bytes, or those there are.
  mutating func bytes(_ count: Int) -> [UInt8] {
    defer { bytes = bytes.dropFirst(count) }
    return Array(bytes.prefix(count))
  }

  mutating func rest() -> [UInt8] { bytes(bytes.count) }
}

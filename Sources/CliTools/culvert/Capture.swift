import ArgumentParser
import Foundation
import Gateway
import Host

struct Capture: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes the packets of a running gateway to a pcapng file.",
    discussion: """
      The file has two interfaces: packets inside the tunnel, and the sealed ones outside, whose IP and UDP headers are \
      made up. A packet that was dropped has the reason as its comment. What does not find room in the gateway's buffer \
      is left out, and counted in the file's interface statistics.

        culvert capture oslo --count 100 oslo.pcapng
        culvert capture oslo --outer --keys oslo.keys oslo.pcapng

      Ends after --count packets, --seconds, or with Ctrl-C. With --keys, tshark decrypts what it knows: AES-GCM with an \
      explicit IV; with extended sequence numbers it decrypts but cannot check the ICV. Keys open all traffic of their \
      associations, also what was recorded elsewhere; only the gateway's own user gets them.
      """)

  @Argument(help: "The gateway's name.")
  var name: String?

  @Argument(help: "The file to write.", completion: .file())
  var file: String?

  @Option(
    help: "The gateway's control socket, where its file sets 'control'; then the name is left out.", completion: .file()
  )
  var control: String?

  @Flag(help: "Packets inside the tunnel; without --outer only these.")
  var inner = false

  @Flag(help: "Sealed packets; without --inner only these.")
  var outer = false

  @Option(help: "Packets after which it ends.")
  var count: Int?

  @Option(help: "Seconds after which it ends.")
  var seconds: Double?

  @Option(name: .customLong("snaplen"), help: "Bytes that are kept of each packet.")
  var snapLength: Int?

  @Option(help: "Only packets from and to this peer.")
  var peer: String?

  @Option(help: "Also write the keys to this file, in the form tshark reads (its file esp_sa).", completion: .file())
  var keys: String?

  func validate() throws {
    if control != nil ? (name == nil || file != nil) : file == nil {
      throw ValidationError("Give the gateway's name or --control, and the file to write.")
    }
    if let count, count < 1 { throw ValidationError("--count is 1 or more.") }
    if let snapLength, !(64...65_575).contains(snapLength) { throw ValidationError("--snaplen is 64 to 65575.") }
    if let seconds, !(0.1...1e6).contains(seconds) { throw ValidationError("--seconds is 0.1 or more.") }
  }

  func run() async throws {
    try await reportingErrors {
      let client = ControlClient(path: control ?? "\(GatewayPlan.controlDirectory)/\(name ?? "").sock")
      guard let path = control == nil ? file : name else { return }
      if let keys { try TsharkKeys.write(try client.keys(), to: keys) }
      guard FileManager.default.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o600]),
        let output = FileHandle(forWritingAtPath: path)
      else { throw OperatorError("\(path) cannot be written", remedy: "choose another place") }
      let options = CaptureOptions(
        inner: inner || !outer, outer: outer || !inner, count: count, snapLength: snapLength, peer: peer)
      let end = seconds.map { Date().addingTimeInterval($0) }
      let watch = InterruptWatch()
      let lost = try client.capture(options, until: { watch.wasInterrupted || end.map { Date() >= $0 } ?? false }) {
        try output.write(contentsOf: Data($0))
      }
      try output.close()
      if lost > 0 {
        complain(OperatorError("\(lost) packets found no room", remedy: "capture less: --snaplen, --peer"))
      }
    }
  }
}

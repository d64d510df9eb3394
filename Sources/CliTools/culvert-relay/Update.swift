import ArgumentParser
import Foundation
import Glibc
import Host
import PacketIO
import Relay
import Transports

/// `culvert-relay update`: gives a running relay a policy that a control system has signed.
struct Update: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Give a running identity relay a signed policy update.",
    discussion: """
      The relay's file has 'policy-key', and 'control'. An update is what a control system, or 'culvert policy', has \
      written; its number is above those of all before it.
      """)

  @Option(help: "Path of the relay's control socket.", completion: .file())
  var control = "/run/culvert/relay.sock"

  @Argument(help: "The update.", completion: .file())
  var file: String

  func run() async throws {
    do {
      let bytes: [UInt8]
      do throws(SystemError) {
        bytes = try Descriptor(open: file, O_RDONLY | O_NONBLOCK).readAll(limit: PolicyUpdate.mostBytes)
      } catch {
        throw OperatorError("\(file) cannot be read: \(error.reason)", remedy: "name a file with an update")
      }
      let answer = try RelayControl.ask(.update(bytes), at: control)
      guard let said = try? JSONDecoder().decode(RelayControl.Taken.self, from: Data(answer)) else {
        throw OperatorError("the relay at \(control) does not know updates", remedy: "see its version")
      }
      if let problem = said.problem {
        throw OperatorError("\(file) is not taken: \(problem)", remedy: said.remedy ?? "")
      }
      print("policy \(said.number ?? 0) is in force")
    } catch {
      Relay.complain(error)
      throw ExitCode.failure
    }
  }
}

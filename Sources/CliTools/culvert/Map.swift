public import ArgumentParser
import Dataplane
import Gateway
public import PacketIO

struct Map: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what an address is called on either side of each tunnel.",
    discussion: """
      A host of this gateway's network is named by the addresses by which each partner knows it; an address by which a \
      partner's host is known here, by that host's own; and the reverse. Asks all gateways on this machine, or one.
      """)

  @Argument(help: "The address of a host.")
  var address: IPAddress

  @OptionGroup var target: Target

  @Flag(help: "Print JSON.")
  var json = false

  func run() async throws {
    try await reportingErrors {
      var answers: [Answer] = []
      if let client = target.client {
        answers = [try ask(client)]
      } else {
        for path in ControlClient.sockets() {
          do { answers.append(try ask(ControlClient(path: path))) } catch { complain(error) }
        }
        if answers.isEmpty { throw Show.nobody }
      }
      if json {
        print(try Show.encode(answers))
      } else {
        for answer in answers { print(AddressText.text("\(address)", answer.meanings, gateway: answer.gateway)) }
      }
    }
  }

  private func ask(_ client: ControlClient) throws -> Answer {
    Answer(gateway: try client.report().name, meanings: try client.meanings(of: address))
  }

  private struct Answer: Encodable {
    let gateway: String
    let meanings: [AddressMeaning]
  }
}

extension IPAddress: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

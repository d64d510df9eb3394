import Glibc
import Host
import PacketIO
import Settings
import Transports

/// Reads the tickets that a gateway shows to identity relays: files that `culvert ticket pair` or a control system wrote.
/// They are no secret, and what is in them is the relay's to judge.
struct RelayTicketReader {
  private static let setting = "relay-tickets"
  /// As many as one enrolment shows, and bytes of each.
  private static let most = 4
  private static let mostBytes = 256
  /// "CVHT", version 2.
  private static let head: [UInt8] = Array("CVHT".utf8) + [2]

  private let top: SettingReader
  private let directory: String

  init(_ top: SettingReader, directory: String) {
    self.top = top
    self.directory = directory
  }

  func tickets() -> [[UInt8]] {
    let remedy = "name a file that 'culvert ticket pair' wrote"
    let names = top.list(Self.setting, "a file's name", remedy, { $0 })
    if names.count > Self.most { top.add(Self.setting, "there are \(names.count)", "name \(Self.most) at most") }
    return names.compactMap { name in
      let path = SettingReader.resolve(name.value, in: directory)
      guard let text = try? Descriptor(open: path, O_RDONLY | O_NONBLOCK).readAll(limit: 4096) else {
        top.add(Self.setting, "\(path) cannot be read", remedy, line: name.line)
        return nil
      }
      let lines = text.split { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }.filter {
        $0.first != UInt8(ascii: "#")
      }
      guard lines.count == 1, let ticket = Base64.decode(text: Array(lines[0])), ticket.starts(with: Self.head),
        ticket.count <= Self.mostBytes
      else {
        top.add(Self.setting, "\(path) is no ticket that names GIDs", remedy, line: name.line)
        return nil
      }
      return ticket
    }
  }
}

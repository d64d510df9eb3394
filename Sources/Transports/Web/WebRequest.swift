import PacketIO

/// The head of an HTTP/1.1 request (RFC 9112 §2), as far as it has come, and what a server that has no pages answers.
struct WebRequest {
  /// Bytes of a head at most.
  static let mostBytes = 8192

  private var head: [UInt8] = []

  /// Takes what came.
  /// - Parameter date: for the answer, as RFC 9110 §5.6.7 has it.
  /// - Returns: the answer, once the head is whole or is none.
  mutating func take(_ bytes: PacketBytes, date: String) -> [UInt8]? {
    let known = head.count
    let room = WebRequest.mostBytes - known
    head += bytes.slice(0, min(bytes.count, room)).array()
    if let end = end(from: known) {
      head.removeLast(head.count - end)
      return answer(date)
    }
    // Who sends no text will send no end of it.
    if let first = head.first, !WebRequest.isToken(first) {
      return WebRequest.response(400, "Bad Request", date, hasBody: true)
    }
    return head.count < WebRequest.mostBytes
      ? nil : WebRequest.response(431, "Request Header Fields Too Large", date, hasBody: true)
  }

  /// Behind the empty line that ends the head; a line may end without the carriage return (RFC 9112 §2.2).
  private func end(from known: Int) -> Int? {
    var index = max(known - 3, 0)
    while index < head.count {
      defer { index += 1 }
      guard head[index] == UInt8(ascii: "\n") else { continue }
      if index + 1 < head.count, head[index + 1] == UInt8(ascii: "\n") { return index + 2 }
      if index + 2 < head.count, head[index + 1] == UInt8(ascii: "\r"), head[index + 2] == UInt8(ascii: "\n") {
        return index + 3
      }
    }
    return nil
  }

  private func answer(_ date: String) -> [UInt8] {
    let line = head.prefix { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n") }
    let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
    guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy({ WebRequest.isToken($0) }), !words[1].isEmpty,
      words[2].elementsEqual("HTTP/1.1".utf8) || words[2].elementsEqual("HTTP/1.0".utf8)
    else { return WebRequest.response(400, "Bad Request", date, hasBody: true) }
    return WebRequest.response(404, "Not Found", date, hasBody: !words[0].elementsEqual("HEAD".utf8))
  }

  /// A character of a method's name (RFC 9110 §5.6.2).
  private static func isToken(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
  }

  /// What is said when the web server behind cannot be reached.
  static func unavailable(date: String) -> [UInt8] { response(502, "Bad Gateway", date, hasBody: true) }

  private static func response(_ status: Int, _ reason: String, _ date: String, hasBody: Bool) -> [UInt8] {
    let title = "\(status) \(reason)"
    let page =
      "<!DOCTYPE html>\r\n<html>\r\n<head><title>\(title)</title></head>\r\n<body>\r\n<h1>\(title)</h1>\r\n</body>\r\n"
      + "</html>\r\n"
    let head =
      "HTTP/1.1 \(title)\r\nDate: \(date)\r\nContent-Type: text/html; charset=utf-8\r\n"
      + "Content-Length: \(page.utf8.count)\r\nConnection: close\r\n\r\n"
    return Array((head + (hasBody ? page : "")).utf8)
  }
}

import PacketIO
import TestSupport
import Testing

@testable import Transports

@Suite struct WebRequestTests {
  private static let date = "Sun, 06 Nov 1994 08:49:37 GMT"

  /// What is answered to bytes that come in such pieces.
  private func answer(_ pieces: [[UInt8]]) -> String? {
    let pool = BufferPool(count: 1)
    let buffer = pool.take()!
    var request = WebRequest()
    for piece in pieces {
      pool.bytes(buffer).copy(piece, to: 0)
      if let answer = request.take(pool.bytes(buffer).slice(0, piece.count), date: Self.date) {
        return String(decoding: answer, as: UTF8.self)
      }
    }
    return nil
  }

  private func answer(_ text: String) -> String? { answer([Array(text.utf8)]) }

  @Test func pagesAreNotFound() throws {
    let answer = try #require(self.answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    let parts = answer.split(separator: "\r\n\r\n", maxSplits: 1)
    try #require(parts.count == 2)
    let lines = parts[0].split(separator: "\r\n").map(String.init)
    #expect(lines[0] == "HTTP/1.1 404 Not Found")
    #expect(lines.contains("Content-Length: \(parts[1].utf8.count)") && lines.contains("Connection: close"))
    #expect(lines.contains("Date: \(Self.date)") && !answer.lowercased().contains("server"))
    // The same, and no body (RFC 9110 §9.3.2).
    #expect(self.answer("HEAD /x HTTP/1.0\r\n\r\n") == parts[0] + "\r\n\r\n")
  }

  @Test(arguments: [
    "GET /\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "G(T / HTTP/1.1\r\n\r\n", "\r\n\r\n",
    "\u{16}\u{3}\u{1}", "hello\n\n",
  ]) func whatIsNoRequestIsBad(text: String) { #expect(answer(text)?.hasPrefix("HTTP/1.1 400 ") == true) }

  @Test func nothingIsSaidBeforeTheHeadIsWhole() {
    #expect(answer("GET / HTTP/1.1\r\nHost: x\r\n") == nil && answer("") == nil)
    let long = "GET / HTTP/1.1\r\nX: " + String(repeating: "y", count: WebRequest.mostBytes)
    #expect(answer(long)?.hasPrefix("HTTP/1.1 431 ") == true)
  }

  /// However it is cut, the answer is the same.
  @Test(arguments: 0..<20) func piecesMakeNoDifference(seed: Int) {
    var random = SeededNumbers(seed: UInt64(seed))
    for text in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD / HTTP/1.1\n\n", "OPTIONS * HTTP/1.1\r\n\r\n", "x y\n\n"] {
      var rest = Array(text.utf8)
      var pieces: [[UInt8]] = []
      while !rest.isEmpty {
        let count = Int.random(in: 1...min(rest.count, 6), using: &random)
        pieces.append(Array(rest.prefix(count)))
        rest.removeFirst(count)
      }
      #expect(answer(pieces) == answer(text) && answer(text) != nil)
    }
  }

  @Test func datesAreThoseOfTheCalendar() {
    #expect(WebDate.text(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
    #expect(WebDate.text(0) == "Thu, 01 Jan 1970 00:00:00 GMT")
    #expect(WebDate.text(951_782_400) == "Tue, 29 Feb 2000 00:00:00 GMT")
    #expect(WebDate.text(1_709_251_199) == "Thu, 29 Feb 2024 23:59:59 GMT")
    #expect(WebDate.text(4_102_444_800) == "Fri, 01 Jan 2100 00:00:00 GMT")
  }
}

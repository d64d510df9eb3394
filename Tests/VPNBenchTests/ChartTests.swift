import Foundation
import Lab
import Testing

@testable import vpnbench

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// What an XML parser sees of a picture.
private final class Picture: NSObject, XMLParserDelegate {
  var elements: [(name: String, attributes: [String: String])] = []
  var text = ""
  var failure: String?

  init(_ svg: String) {
    super.init()
    let parser = XMLParser(data: Data(svg.utf8))
    parser.delegate = self
    if !parser.parse() { failure = "\(String(describing: parser.parserError)), line \(parser.lineNumber)" }
  }

  func parser(
    _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
    attributes: [String: String]
  ) { elements.append((name, attributes)) }

  func parser(_ parser: XMLParser, foundCharacters string: String) { text += string }

  func numbers(_ attribute: String, of kind: String) -> [Double] {
    elements.filter { $0.attributes["class"] == kind }.compactMap { Double($0.attributes[attribute] ?? "") }
  }
}

@Suite struct ChartTests {
  private static let report = Reports.report([
    (Reports.wire, Reports.speed, [38, 40, 44]), (Reports.tunnel, Reports.speed, [10, 10, 12]),
    (Reports.other, Reports.speed, [2.5, 2, 3]), (Reports.tunnel, Reports.time, [100]),
    (Reports.other, Reports.time, [400]),
  ])

  @Test func barsAreAsLongAsTheirMediansSay() throws {
    let picture = Picture(Chart(Self.report).svg())
    #expect(picture.failure == nil)
    let lengths = picture.numbers("width", of: "bar")
    // The longest spread of a panel, here 44 and 400, fills its room; widths are written to a tenth.
    let expected = [40 / 44.0, 10 / 44.0, 2.5 / 44.0, 0.25, 1].map { $0 * Chart.barRoom }
    try #require(lengths.count == expected.count)
    for (length, wanted) in zip(lengths, expected) { #expect(abs(length - wanted) <= 0.051) }
    #expect(picture.elements.filter { $0.attributes["class"] == "spread" }.count == 3)
    for words in ["Speed", "Time", "Gbit/s, more is better", "µs, less is better", "culvert", "2.50", "400"] {
      #expect(picture.text.contains(words), "\(words)")
    }
  }

  @Test func spreadsGoFromTheLeastToTheGreatest() throws {
    let picture = Picture(Chart(Self.report, metrics: ["speed"], subjects: ["culvert"]).svg())
    let path = try #require(picture.elements.first { $0.attributes["class"] == "spread" }?.attributes["d"])
    let left = try #require(picture.numbers("x", of: "bar").first)
    // M, the least value, …, H, the greatest.
    let match = try #require(path.firstMatch(of: /^M([\d.]+) .*H([\d.]+)M/))
    let ends = try [match.1, match.2].map { try #require(Double($0)) - left }
    #expect(abs(ends[0] - 10 / 12 * Chart.barRoom) <= 0.11)
    #expect(abs(ends[1] - Chart.barRoom) <= 0.11)
  }

  @Test func everythingLiesWithinThePicture() throws {
    for count in [0, 1, 2, 3, 18] {
      var report = Report(scenario: "many")
      for number in 0..<count {
        let metric = Report.Metric(id: "\(number)", title: "Figure \(number)", unit: "s", higherIsBetter: false)
        for name in ["a", "b", "c"] {
          report.add(Double(number), metric, of: Report.Entry(name: name, isBound: false, note: nil))
        }
      }
      let picture = Picture(Chart(report).svg())
      #expect(picture.failure == nil)
      let frame = try #require(picture.elements.first?.attributes)
      let (width, height) = (Double(frame["width"] ?? "") ?? 0, Double(frame["height"] ?? "") ?? 0)
      #expect(picture.numbers("width", of: "bar").count == 3 * count)
      for element in picture.elements where element.name == "text" || element.attributes["class"] == "bar" {
        let x = try #require(Double(element.attributes["x"] ?? ""))
        let y = try #require(Double(element.attributes["y"] ?? ""))
        #expect((0...width).contains(x) && (0...height).contains(y))
      }
    }
  }

  @Test(arguments: ["<&>\"'", "a\u{0}b\u{7}c", "]]>", "ø—€ 𝄞", "\u{FFFE}\u{FFFF}", String(repeating: "x", count: 200)])
  func anyNameIsWellFormed(name: String) {
    let subject = Report.Entry(name: name, isBound: false, note: nil)
    let metric = Report.Metric(id: "m", title: name, unit: name, higherIsBetter: true)
    var chart = Chart(Reports.report([(subject, metric, [1, 2])]))
    chart.title = name
    #expect(Picture(chart.svg()).failure == nil)
  }

  @Test func nothingAndNegativeValuesMakeNoNegativeBars() {
    let picture = Picture(Chart(Reports.report([(Reports.tunnel, Reports.speed, [0, -1])])).svg())
    #expect(picture.failure == nil)
    #expect(picture.numbers("width", of: "bar") == [0])
  }
}

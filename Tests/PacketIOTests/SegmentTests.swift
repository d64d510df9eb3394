import PacketIO
import Testing

/// How a superpacket of a transport is cut.
@Suite struct SegmentTests {
  /// Against a cut that goes byte by byte, with sizes that fit and sizes that do not.
  @Test func cutsWhereSizesSay() {
    var random = Numbers(state: 71)
    for _ in 0..<2000 {
      let size = Int.random(in: 1...20, using: &random)
      let gap = Int.random(in: 0...3, using: &random)
      let length = Int.random(in: 0...100, using: &random)
      let superpacket = Superpacket(buffer: 0, offset: 5, length: length, segmentSize: size, gap: UInt8(gap))
      var expected: [Segment] = []
      for place in 0..<length where place % (size + gap) < size {
        if place % (size + gap) == 0 {
          expected.append(Segment(start: place, length: 1))
        } else if let last = expected.popLast() {
          expected.append(Segment(start: last.start, length: last.length + 1))
        }
      }
      #expect(Array(superpacket.segments()) == expected)
      for (index, segment) in expected.enumerated() {
        #expect(Array(superpacket.segments(from: segment.start)) == Array(expected[index...]))
      }
    }
  }

  /// A size of 0 comes from nobody, and must not be an endless loop.
  @Test func aSizeOfNothingEnds() {
    let superpacket = Superpacket(buffer: 0, offset: 0, length: 7, segmentSize: 0)
    #expect(Array(superpacket.segments()).count == 7)
  }
}

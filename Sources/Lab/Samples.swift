/// Repeated measurements of one quantity.
public struct Samples: Sendable, Equatable, Codable {
  /// In the order they were taken.
  public private(set) var values: [Double]

  public init(_ values: [Double] = []) { self.values = values }

  public mutating func append(_ value: Double) { values.append(value) }

  public var isEmpty: Bool { values.isEmpty }
  public var count: Int { values.count }
  public var min: Double { values.min() ?? 0 }
  public var max: Double { values.max() ?? 0 }

  /// The smallest value that at least `share` of all values do not exceed (nearest rank); 0 without values.
  /// - Parameter share: 0 to 1.
  public func percentile(_ share: Double) -> Double {
    if values.isEmpty { return 0 }
    let sorted = values.sorted()
    let rank = Int((share * Double(sorted.count)).rounded(.up))
    return sorted[Swift.min(Swift.max(rank, 1), sorted.count) - 1]
  }

  /// The middle value, or the mean of the two in the middle.
  public var median: Double {
    if values.isEmpty { return 0 }
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }

  /// How far the values lie apart, as a share of the median: the median distance from it, scaled so that it
  /// equals the standard deviation of normally distributed noise. Outliers hardly move it.
  public var spread: Double {
    let middle = median
    if values.count < 2 || middle == 0 { return 0 }
    return 1.4826 * Samples(values.map { abs($0 - middle) }).median / abs(middle)
  }
}

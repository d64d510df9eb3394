import Glibc

/// The date as HTTP has it (RFC 9110 §5.6.7): "Sun, 06 Nov 1994 08:49:37 GMT".
enum WebDate {
  private static let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
  private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

  static var now: String { text(time(nil)) }

  /// - Parameter seconds: since 1970 UTC; not before.
  static func text(_ seconds: Int) -> String {
    let (day, second) = max(seconds, 0).quotientAndRemainder(dividingBy: 86_400)
    let clock = [second / 3600, second / 60 % 60, second % 60].map(two).joined(separator: ":")
    return "\(days[day % 7]), \(date(day)) \(clock) GMT"
  }

  /// In the calendar of 400 years that begin in March, so that a leap day is a year's last (RFC 3339 appendix B).
  private static func date(_ day: Int) -> String {
    let (era, dayOfEra) = (day + 719_468).quotientAndRemainder(dividingBy: 146_097)
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let month = (5 * dayOfYear + 2) / 153
    let dayOfMonth = dayOfYear - (153 * month + 2) / 5 + 1
    return "\(two(dayOfMonth)) \(months[(month + 2) % 12]) \(yearOfEra + era * 400 + (month >= 10 ? 1 : 0))"
  }

  private static func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
}

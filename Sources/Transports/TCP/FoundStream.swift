import Glibc

/// What there is for something that is to be sent along a path.
enum FoundStream {
  case place(Int)
  /// The stream was accepted once and has ended.
  case gone
  /// There is no stream at the moment, because of that error.
  case waiting(Int32)
  case tooMany

  /// What to report; nil where there is a stream.
  var error: Int32? {
    switch self {
    case .place: nil
    case .gone: ENOTCONN
    case .waiting(let error): error
    case .tooMany: EUSERS
    }
  }
}

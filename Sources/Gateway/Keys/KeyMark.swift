import Dataplane
import Host
import PacketIO

/// A note on a file of keys that one of them was used, for the case that the records of that are lost. A copy made with
/// usual means does not have it, so that the peer's copy of a secret counts as new.
struct KeyMark {
  private let mark: FileMark

  init(_ key: Fingerprint, in file: String) { mark = FileMark(file, key.description) }

  var isSet: Bool { mark.isSet }
  func set() throws(SystemError) { try mark.set() }
  func remove() throws(SystemError) { try mark.remove() }
}

import Foundation
import Host
import Relay
import Synchronization

/// Puts signed policy updates in force: each is kept first, so that a relay that is started anew has what it had.
final class PolicyDesk: Sendable {
  private let store: Mutex<PolicyStore?>
  private let proxy: HairpinProxy

  /// - Parameter store: nil: the relay's file says who may meet, and no updates are taken.
  init(_ store: PolicyStore?, _ proxy: HairpinProxy) {
    self.store = Mutex(store)
    self.proxy = proxy
  }

  var isOpen: Bool { store.withLock { $0 != nil } }

  /// For the log.
  var state: String {
    let number = store.withLock { $0?.book.number ?? 0 }
    return number > 0
      ? "policy \(number) of the control system stays in force; the file says nothing of who may meet"
      : "nothing passes: no policy update has come yet"
  }

  /// Takes an update.
  /// - Returns: what became of it, as JSON.
  func take(_ bytes: [UInt8]) -> [UInt8] {
    let taken = store.withLock { store -> RelayControl.Taken in
      guard store != nil else {
        return RelayControl.Taken(
          problem: "the relay's own file says who may meet", remedy: "give it a 'policy-key' in place of that")
      }
      do {
        try store?.take(bytes)
        if let book = store?.book { proxy.update(book.policy) }
        return RelayControl.Taken(number: store?.book.number)
      } catch let error as OperatorError {
        return RelayControl.Taken(problem: error.problem, remedy: error.remedy)
      } catch {
        return RelayControl.Taken(problem: "\(error)", remedy: "have the control system make another one")
      }
    }
    return (try? JSONEncoder().encode(taken)).map { Array($0) } ?? Array("{}".utf8)
  }
}

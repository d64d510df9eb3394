import Lab

/// Whether network namespaces can be made here; says so when not.
package let canMakeNamespaces: Bool = {
  guard let obstacle = Namespace.obstacle else { return true }
  print("SKIPPED: all tests of transports over loopback: \(obstacle)")
  return false
}()

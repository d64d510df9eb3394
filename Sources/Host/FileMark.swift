import CLinux
package import PacketIO

/// An extended attribute of a file that says no more than that it is there (xattr(7), name space `user`).
package struct FileMark: Sendable {
  private let path: String
  private let name: String

  /// - Parameters:
  ///   - path: of a file that there is; links are followed.
  ///   - name: without the name space.
  package init(_ path: String, _ name: String) {
    self.path = path
    self.name = "user.culvert.\(name)"
  }

  /// False also where the file system knows no attributes.
  package var isSet: Bool { unsafe culvert_has_mark(path, name) != 0 }

  package func set() throws(SystemError) { try check(unsafe culvert_set_mark(path, name)) }

  package func remove() throws(SystemError) { try check(unsafe culvert_remove_mark(path, name)) }

  private func check(_ status: Int32) throws(SystemError) {
    if status < 0 { throw SystemError("mark \(path)", errno: -status) }
  }
}

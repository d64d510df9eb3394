import Glibc

/// A child process and our ends of its pipes.
final class Spawned: Sendable {
  let pid: pid_t
  private let outputEnd: Int32
  private let inputEnd: Int32

  init(_ path: String, _ arguments: [String], _ environment: [(String, String)], hasInput: Bool) throws {
    let output = try System.pipe()
    let input = hasInput ? try System.pipe() : (reading: -1, writing: -1)

    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    if hasInput {
      unsafe posix_spawn_file_actions_adddup2(&actions, input.reading, 0)
    } else {
      unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    }
    unsafe posix_spawn_file_actions_adddup2(&actions, output.writing, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, output.writing, 2)

    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    var all = sigset_t()
    unsafe sigemptyset(&none)
    unsafe sigfillset(&all)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setsigdefault(&attributes, &all)
    unsafe posix_spawnattr_setpgroup(&attributes, 0)
    let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
    unsafe posix_spawnattr_setflags(&attributes, Int16(flags))

    let named = Set(environment.map(\.0))
    let inherited = ProcessEnvironment.current.filter { !named.contains(String($0.prefix { $0 != "=" })) }
    let variables = inherited + environment.map { "\($0.0)=\($0.1)" }
    var child = pid_t()
    let code = unsafe withCStrings([path] + arguments) { argv in
      unsafe withCStrings(variables) { envp in unsafe posix_spawn(&child, path, &actions, &attributes, argv, envp) }
    }
    close(output.writing)
    if hasInput { close(input.reading) }
    guard code == 0 else {
      close(output.reading)
      if hasInput { close(input.writing) }
      throw LabError.system("start \(path)", code)
    }
    pid = child
    outputEnd = output.reading
    inputEnd = input.writing
  }

  deinit { close(outputEnd) }

  /// Writes all of `text` to its standard input, which then ends.
  func give(_ text: String) {
    let bytes = Array(text.utf8)
    var sent = 0
    while sent < bytes.count {
      let n = unsafe bytes[sent...].withUnsafeBytes { unsafe write(inputEnd, $0.baseAddress, $0.count) }
      if n <= 0 { break }
      sent += n
    }
    close(inputEnd)
  }

  /// Returns when the last holder of the pipe's other end has closed it.
  func readOutput(_ take: (ArraySlice<UInt8>) -> Void) {
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
      let n = unsafe read(outputEnd, &chunk, chunk.count)
      if n < 0, errno == EINTR { continue }
      if n <= 0 { return }
      take(chunk[..<n])
    }
  }
}

/// Lends `strings` as a null-terminated array of C strings.
private func withCStrings<R>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) throws -> R
) rethrows -> R {
  var pointers: [UnsafeMutablePointer<CChar>?] = unsafe []
  for string in strings { unsafe pointers.append(unsafe strdup(string)) }
  unsafe pointers.append(nil)
  defer { while let pointer = unsafe pointers.popLast() { unsafe free(pointer) } }
  return try unsafe pointers.withUnsafeBufferPointer { unsafe try body($0.baseAddress!) }
}

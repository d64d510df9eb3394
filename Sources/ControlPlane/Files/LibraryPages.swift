import Glibc

/// Pages of the program and its libraries, of which most are needed once: to read files and to set up.
enum LibraryPages {
  /// Unmaps all code; what runs again comes back from the page cache as it is touched, in large pieces. So nothing here
  /// uses Foundation, which would be back at once.
  ///
  /// Only code that was mapped to be run and never written to: a file's other pages may hold what the linker filled in.
  /// Where the map cannot be read nothing happens.
  static func release() {
    guard let file = unsafe fopen("/proc/self/maps", "re") else { return }
    defer { unsafe fclose(file) }
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { unsafe free(line) }
    while unsafe getline(&line, &capacity, file) > 0, let text = unsafe line.map({ unsafe String(cString: $0) }) {
      // start-end permissions offset device inode path
      let words = text.split(separator: " ")
      guard words.count == 6, words[1] == "r-xp", words[5].hasPrefix("/") else { continue }
      let ends = words[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
      guard ends.count == 2, ends[0] < ends[1] else { continue }
      unsafe madvise(UnsafeMutableRawPointer(bitPattern: ends[0]), Int(ends[1] - ends[0]), MADV_DONTNEED)
    }
  }
}

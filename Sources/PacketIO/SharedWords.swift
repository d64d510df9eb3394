import Glibc
import Synchronization

/// 64-bit words of a file that is mapped into memory: what is written is there for other processes, and for the next
/// one, however this one ends.
///
/// The file must be as long, and its blocks must exist: a word for which the file system finds no room ends the process.
@safe package final class SharedWords: Sendable {
  private nonisolated(unsafe) let base: UnsafeMutablePointer<Atomic<UInt64>>
  package let count: Int

  /// - Throws: `SystemError`: the file cannot be mapped.
  package init(mapping file: Int32, count: Int) throws(SystemError) {
    let bytes = count * MemoryLayout<UInt64>.stride
    let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw SystemError("map a file of shared numbers", errno: errno)
    }
    unsafe base = address.bindMemory(to: Atomic<UInt64>.self, capacity: count)
    self.count = count
  }

  deinit { unsafe munmap(base, count * MemoryLayout<UInt64>.stride) }

  package subscript(index: Int) -> UInt64 {
    get {
      precondition((0..<count).contains(index))
      return unsafe base[index].load(ordering: .acquiring)
    }
    set {
      precondition((0..<count).contains(index))
      unsafe base[index].store(newValue, ordering: .releasing)
    }
  }

  /// One of the words, for somebody who only raises it.
  package struct Word: Sendable {
    private let words: SharedWords
    private let index: Int

    package init(_ words: SharedWords, _ index: Int) {
      precondition((0..<words.count).contains(index))
      self.words = words
      self.index = index
    }

    package func raise(to value: UInt64) { unsafe words.base[index].max(value, ordering: .relaxed) }
  }
}

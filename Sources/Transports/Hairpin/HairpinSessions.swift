import PacketIO

/// The sessions of a link, and which of them a path or an allocated port belongs to.
struct HairpinSessions {
  struct Entry {
    var session: HairpinSession
    let tag: UInt64
    var isEncrypted = false
  }

  private(set) var entries: [Entry] = []
  /// Positions by a path's tag, and by allocated port while there is one.
  private var byTag: [UInt64: Int] = [:]
  private var byDatagramPort: [Endpoint: Int] = [:]
  private var byStreamPort: [Endpoint: Int] = [:]

  var count: Int { entries.count }
  var indices: Range<Int> { entries.indices }

  /// A session, in place.
  subscript(_ position: Int) -> HairpinSession {
    _read { yield entries[position].session }
    _modify { yield &entries[position].session }
  }

  func tag(_ position: Int) -> UInt64 { entries[position].tag }
  func isEncrypted(_ position: Int) -> Bool { entries[position].isEncrypted }
  func position(tag: UInt64) -> Int? { byTag[tag] }
  func position(port: Endpoint, _ encapsulation: Encapsulation) -> Int? {
    encapsulation == .tcp ? byStreamPort[port] : byDatagramPort[port]
  }

  /// When the first of them has something to do; nil when there are none.
  var deadline: MonotonicTime? {
    var next: MonotonicTime?
    for entry in entries { next = min(next ?? entry.session.deadline, entry.session.deadline) }
    return next
  }

  /// Takes over the tickets that are in force now; sessions that stay go on.
  /// - Returns: those that are over.
  mutating func replace(_ tickets: [HairpinTransport.Entry], now: MonotonicTime) -> [Entry] {
    let old = entries
    entries = []
    byTag = [:]
    var kept: Set<UInt64> = []
    for ticket in tickets where byTag[ticket.tag] == nil {
      byTag[ticket.tag] = entries.count
      let same = old.first { $0.tag == ticket.tag && $0.session.file.leadsWhere(ticket.file) }
      if same != nil { kept.insert(ticket.tag) }
      entries.append(
        Entry(
          session: same?.session ?? HairpinSession(ticket.file, encapsulation: ticket.encapsulation, now: now),
          tag: ticket.tag, isEncrypted: ticket.isEncrypted))
    }
    indexPorts()
    return old.filter { !kept.contains($0.tag) }
  }

  /// A session has another port, or none.
  mutating func indexPorts() {
    byDatagramPort = [:]
    byStreamPort = [:]
    for (position, entry) in entries.enumerated() {
      // Encrypted ones share a port, and are told from each other by their paths.
      guard let port = entry.session.port, !entry.isEncrypted else { continue }
      if entry.session.encapsulation == .udp { byDatagramPort[port] = position } else { byStreamPort[port] = position }
    }
  }
}

/// Keys made with `openssl genpkey` for these tests and for nothing else.
enum KeyTexts {
  static let p256 = """
    -----BEGIN PRIVATE KEY-----
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglLcva94WLZqQzCnT
    ORHk42Q+Rx+F2rFbkz4Dt2tDC1ShRANCAAQavTe0w58FRPH3N6RI+iFJ3qLNV8YF
    AAbQrcdAcF4BZ3H++UPesBkpvkI6Wwv8mfZ9D59/EjG0ZW/a3i9md/GA
    -----END PRIVATE KEY-----

    """
  static let rsa2048 = """
    -----BEGIN PRIVATE KEY-----
    MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCcFMyZaWRWln7x
    v+4CALZbvU6YVPSuIaNNW3aONQIyhMbIxPfNIXM11RxBWOYwkWLvB26Otv4/om/+
    RlsH+qnT5ny+wtYS2RQMXLXJ9ipPsw6u2WJhA13iHh9yJEU5vRuelV3EvJK/Ep7H
    g1r9VipyyCuet6dm/AzOamXh3GbR9vZhV4A4iq03ckrb9VNdqH9waWnObypF1tWN
    AlDkhdkwd4GZQbxhnbitnUtYiB9lvOru2gexo7rZc4SzC860cKg/XfUGMnRSZqjf
    tU9bXhKDcN8Bi0Lvr19CIDiWkYRI8chKz2mQjeKEmCRNGOvtDKdo6NMVRPbkTcaf
    hjz/Wpc9AgMBAAECggEAHfbhQ6eH15a7ZsJ72T8VQ13/139h3QdAsGJ5i3oSQqwa
    dKNZ1nQQR/qymroMMTFMLsr8tuHbRFC1UvnjUpAVKAT1GHNTwVkS//+Rd+UuQNBF
    ppw9xpWsobM6QsHDV38ebQ7Mam9wdcXHnVJytrWi3xfeRfGIrh0AAWXMSvTy+WZ1
    GVfdr0c64CLhHMPBZSTtC3GKIpTnFf5L8Rax0LymVuhw/e+Vxt87wOg5cxd21wn0
    vm9QqoLbgSEUYDXPhmS1u7Pp7gohK/8SmrreTYXBQap+bKG2GonlJ582ulioSRyj
    hFnKbqGXMRZ7x35YqvbCxkrmHHqOQ15P2CSwdtMZCQKBgQDQ8xyPOaJzNf/T7WHn
    oScPu21yYwqJg+FswqyzFY6egfm5Fh5xrjr9mjYxXS6KYVYkprEtyUS8jBspgdZd
    +ZVWWaNZz14hutzdCCavL8JIrAGhRrDawGFVGRFppraRKEU6zFUXogrWkdiqssJC
    pdg1B4v9v78TgOAo9xuj0eenZQKBgQC/OheJg22t0Wm7Dj0GR0Z7fEP1GPTrfnmv
    oWtIZLhI0QOtou73IGeBMOVkiWdeWE0UrkowBkfT/GIL3SLzTA7M1yRsQ7u0IKLQ
    20F4LPNE/OSqoRNvQ/jmK+Dp76ONcYYrsl3MTge1CauX+zfGwnaDdeJSQvp8ipGu
    ebwZ02hO+QKBgCvSoS3Ex7ZkH+ihw8Phv6CEDbtM3FvlBfVaiv/wSH4kAmz4H6B2
    Czc/DZii020AZyG+uDBDIyBsPhIhggUpoFGA8UqXvEVUvJe66uoZGSVGtfzOJ69p
    Y8CGRmmjJm0hRgvD6SDQwncoFYoPfcCeqc7Na2Xnvjpn8BuHYAumrXAlAoGALkto
    C1iQIvaBvFFUIML8o0SQRzQFh0WVPBm+GUaY/rfrRgweAiIMLNCjmFVTexmxf4I6
    X6oFlaKSMgEVRwVwx9KF9NfpB1CnWhzamrd3JYp76XsZc2RnS4Hv73Kei82iB84k
    uyNg5kkzC5Y8CJhnjKfrZLLmZWQ+pJjAGxh9NjECgYEAgZ95rcA0kULvwpMgNO4z
    9f/prmatzcblIpeuhHNObiubcLZeTdQ25mtCzcEfiedHuJJnwvASwZwTzZIN4IyE
    9A9EThU6PCr+rJCFFbeCcu0+lIjmRz7Sv97d4tmbMhadUnWkhoYcbvZQ5hoeNoyk
    dBGEcMWEXZHUCx3LxoUwj6I=
    -----END PRIVATE KEY-----

    """
  static let rsa1024 = """
    -----BEGIN PRIVATE KEY-----
    MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAL1OtJgaXMwmpYvr
    C6asFxI6bkcHycT0hC2/npsUVqw6AcoYDpO4j9vxXv6q9Gi0907kXjxfSWfb3k8k
    md57emWWepn/2VthbL5KoI91tzwWS/R64rH6BaYTirPsl2moC56SXMgyd9qVlyeM
    tHu/2D+nYljVKCAX4QwjqzOsO5+dAgMBAAECgYBI2u950juAficcEBtty7EdXMtw
    HrkySYBNMv/RYyRwJ+rkYhnKFC+ZT+1lSVnCqlK7U/xIc8uGYwHNp6JoE1Fo+erE
    EKb7vNyj4ZYpxflh1h+W37UR7qJc+VWxyKt73CXyUOdrw7QjFNbVRRiNNPB9ULG1
    b274jUjdbw3p75pDQQJBAN4GZHdPFxpGdmd58KHBXi8CUizIE0FmsvIrC/+9ph7X
    ImB1DJtVXJjQFN8fT7MO4rUsvdgJfH9gFfG9hTQRxPkCQQDaRqLqDKXhcaqfeJjm
    KFV5VGxgNkBpXiL627dzZ5zt+ZIRxfziGkh3px68oGpA5ipy29ay8Lifp7oWnJLy
    pmzFAkA+g8REB8P0hQSPzDjiAsVXLSsgKtGpJ5aZM1+0iZy9sEugpzR+hEGHUYee
    730MaNOSud9Wdg1U/CQRphBcgehZAkEAwc88cpL+axnxRR3grWQc2Nl0TU1+jdBv
    QMz8q/TRK6CQ6UUiEGUD+XIjYZsSHUQBZvD6RvJlDCXynocyF1BcfQJBAIPx2dZo
    vBTfRcJMkIb7P96qHk1RdsDlXEmCbuHXq/iGGcO2fyxSIinrxXLhOScCEYVvHV9Q
    lhOwooL/R3Lke9k=
    -----END PRIVATE KEY-----

    """
  static let secp256k1 = """
    -----BEGIN PRIVATE KEY-----
    MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQg/XQrHR1zjfhv25Gp8peq
    /MhhJkudFjTLotBf/MXnaWWhRANCAAQKLtaTM9mRP/n/2TneCe/p5ctVcDMAOe0F
    Xsnyq0WQ5h236MtswP39114hh0BCMzbMkmFTRtEMTu2RpI4F0gL7
    -----END PRIVATE KEY-----

    """
  static let x25519 = """
    -----BEGIN PRIVATE KEY-----
    MC4CAQAwBQYDK2VuBCIEIJB3DXDx4SWfVbNwVWtRs3v/+kGiPm2Zmssj2iIMQUpW
    -----END PRIVATE KEY-----

    """
  static let ed448 = """
    -----BEGIN PRIVATE KEY-----
    MEcCAQAwBQYDK2VxBDsEOZ9P/mxM0m2bzpDEDVJJkxUdW6hpq8+m3QqilcYxJ9iQ
    qSAMadEnD+Lfu9Kf4g4okZl61PpWjozCfA==
    -----END PRIVATE KEY-----

    """
  static let encrypted = """
    -----BEGIN ENCRYPTED PRIVATE KEY-----
    MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAi30elismb7WAICCAAw
    DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEECzEOARViqLAsxK+0OWE4lcEgZB7
    HgSZiNBA8JTrVz9J2Sbu3QwLvvHtvhgAqsIZsELJn/wjzG5OZRm45Zionvv4m9WB
    VRX3sM+Jc0levTrEDNUK06MAprr2/7Wbr0Yxx+28Z2MgkKLJOQ9MEl6Kz4iXEFHb
    U4owvgIHYp9c6rZ6z8RBtLsjQQJxorO9WgmcZ4fdcqS9oaO7q4XGPGMkYlPrXfs=
    -----END ENCRYPTED PRIVATE KEY-----

    """
  static let halvesOfTwo = """
    -----BEGIN PRIVATE KEY-----
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZ9MqK2bE4Ul6s4NW
    U6XPmBMW8zE+XGAl6wU7XbuGsHGhRANCAATxclBDO1ivDEOhnfxhLbn0zv7LQ1IB
    atkQkdAc5Gk2raK0lDaQA0dfXTCPGQWHBRuOjZi5pgVk5+HVBPssZHZM
    -----END PRIVATE KEY-----

    """
  static let p256Public = """
    -----BEGIN PUBLIC KEY-----
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEGr03tMOfBUTx9zekSPohSd6izVfG
    BQAG0K3HQHBeAWdx/vlD3rAZKb5COlsL/Jn2fQ+ffxIxtGVv2t4vZnfxgA==
    -----END PUBLIC KEY-----

    """
  static let p256PublicCompressed = """
    -----BEGIN PUBLIC KEY-----
    MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgACGr03tMOfBUTx9zekSPohSd6izVfG
    BQAG0K3HQHBeAWc=
    -----END PUBLIC KEY-----

    """
  static let rsa2048Public = """
    -----BEGIN PUBLIC KEY-----
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnBTMmWlkVpZ+8b/uAgC2
    W71OmFT0riGjTVt2jjUCMoTGyMT3zSFzNdUcQVjmMJFi7wdujrb+P6Jv/kZbB/qp
    0+Z8vsLWEtkUDFy1yfYqT7MOrtliYQNd4h4fciRFOb0bnpVdxLySvxKex4Na/VYq
    csgrnrenZvwMzmpl4dxm0fb2YVeAOIqtN3JK2/VTXah/cGlpzm8qRdbVjQJQ5IXZ
    MHeBmUG8YZ24rZ1LWIgfZbzq7toHsaO62XOEswvOtHCoP131BjJ0Umao37VPW14S
    g3DfAYtC769fQiA4lpGESPHISs9pkI3ihJgkTRjr7QynaOjTFUT25E3Gn4Y8/1qX
    PQIDAQAB
    -----END PUBLIC KEY-----

    """
  static let rsa1024Public = """
    -----BEGIN PUBLIC KEY-----
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC9TrSYGlzMJqWL6wumrBcSOm5H
    B8nE9IQtv56bFFasOgHKGA6TuI/b8V7+qvRotPdO5F48X0ln295PJJnee3pllnqZ
    /9lbYWy+SqCPdbc8Fkv0euKx+gWmE4qz7JdpqAueklzIMnfalZcnjLR7v9g/p2JY
    1SggF+EMI6szrDufnQIDAQAB
    -----END PUBLIC KEY-----

    """
}

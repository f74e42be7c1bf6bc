<?php
// Answers each line of JSON with one of JSON: what mailparse, iconv and mbstring show of a message, or what two tables make
// of the octets of a charset. Texts are in hexadecimal, because they may not be UTF-8.
error_reporting(0);
ini_set('memory_limit', '1G');
mb_internal_encoding('UTF-8');

function to_utf8(string $octets, string $charset): string {
    $text = @iconv($charset ?: 'us-ascii', 'UTF-8//IGNORE', $octets);
    return $text === false ? $octets : $text;
}

function field(array $fields, string $name): string {
    return implode("\n", (array) ($fields[$name] ?? ''));
}

function read_message(string $octets): array {
    $mail = mailparse_msg_create();
    mailparse_msg_parse($mail, $octets);
    $parts = [];
    foreach (mailparse_msg_get_structure($mail) as $name) {
        $part = mailparse_msg_get_part($mail, $name);
        $data = mailparse_msg_get_part_data($part);
        $type = $data['content-type'];
        if (str_starts_with($type, 'multipart/')) {
            $parts[] = [$type];
            continue;
        }
        ob_start();
        mailparse_msg_extract_part($part, $octets);
        $content = ob_get_clean();
        if (str_starts_with($type, 'text/')) {
            $content = to_utf8($content, $data['content-charset'] ?? ($data['charset'] ?? ''));
        }
        $file = $data['disposition-filename'] ?? ($data['content-name'] ?? '');
        $parts[] = [$type, $data['content-disposition'] ?? '', bin2hex(iconv_mime_decode($file, 2, 'UTF-8') ?: $file), bin2hex($content)];
    }
    $fields = mailparse_msg_get_part_data($mail)['headers'];
    mailparse_msg_free($mail);
    $shown = ['mailparse' => ['parts' => $parts]];
    foreach (['subject', 'from'] as $name) {
        $raw = field($fields, $name);
        $shown['iconv'][$name] = bin2hex((string) @iconv_mime_decode($raw, 2, 'UTF-8'));
        $shown['mbstring'][$name] = bin2hex((string) @mb_decode_mimeheader($raw));
    }
    return $shown;
}

function decode(string $charset, array $codes): array {
    $octets = array_map('hex2bin', $codes);
    try {
        mb_convert_encoding('a', 'UTF-8', $charset);
        $shown['mbstring'] = array_map(fn ($some) => bin2hex(mb_convert_encoding($some, 'UTF-8', $charset)), $octets);
    } catch (ValueError) {
        $shown['mbstring'] = null;
    }
    $known = @iconv($charset, 'UTF-8', 'a') !== false;
    $shown['iconv'] = $known ? array_map(fn ($some) => bin2hex((string) @iconv($charset, 'UTF-8', $some)), $octets) : null;
    return $shown;
}

while (($line = fgets(STDIN)) !== false) {
    $asked = json_decode($line, true);
    $shown = isset($asked['codes'])
        ? decode($asked['charset'], $asked['codes'])
        : read_message(base64_decode($asked['message']));
    echo json_encode($shown, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

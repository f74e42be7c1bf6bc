<?php

// Sends a mail as AVideo does, with the PHPMailer of the distribution: the same calls in the same order, a new object and a
// new connection for each chunk of recipients, success and failure judged by what send() gives.
//
//   php avideo_send.php HOST PORT < job.json     prints one line of JSON for each chunk
//
// The job: {"recipients": [...], "subject": "...", "html": "...", "from": "...", "name": "...", "chunk": 50,
// "login": [NAME, PASSWORD] or null, "secure": "", "tls" or "ssl",
// "without": "" for SMTP, "isMail" or "isSendmail" for AVideo without SMTP settings: the command is in sendmail_path}

declare(strict_types=1);

require '/usr/share/php/libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\PHPMailer;
use PHPMailer\PHPMailer\SMTP;

function prepare(string $host, int $port, array $job, array &$heard): PHPMailer
{
    $mail = new PHPMailer();
    $mail->CharSet = PHPMailer::CHARSET_UTF8;
    $mail->isSMTP();
    $mail->SMTPOptions = [
        'ssl' => ['verify_peer' => false, 'verify_peer_name' => false, 'allow_self_signed' => true],
    ];
    $mail->SMTPAuth = $job['login'] !== null;
    [$mail->Username, $mail->Password] = $job['login'] ?? ['', ''];
    $mail->SMTPSecure = $job['secure'];
    $mail->Host = $host;
    $mail->Port = $port;
    // Listening only: AVideo does not, but a test wants to see what was said.
    $mail->SMTPDebug = SMTP::DEBUG_SERVER;
    $mail->Debugoutput = static function (string $line) use (&$heard): void {
        if (preg_match('/^SERVER -> CLIENT: (.*)$/s', $line, $match)) {
            $heard[] = trim($match[1]);
        }
    };
    if ($job['without'] !== '') {
        $mail->{$job['without']}();
    }
    return $mail;
}

function send_chunk(string $host, int $port, array $job, array $recipients): array
{
    $heard = [];
    $mail = prepare($host, $port, $job, $heard);
    $mail->setFrom($job['from'], $job['name']);
    if (count($recipients) === 1) {
        $mail->addAddress($recipients[0]);
    } else {
        foreach ($recipients as $recipient) {
            $mail->addBCC($recipient);
        }
    }
    $mail->Subject = $job['subject'];
    $mail->msgHTML($job['html']);
    $ok = $mail->send();
    return ['ok' => $ok, 'error' => $mail->ErrorInfo, 'recipients' => $recipients, 'heard' => $heard];
}

[, $host, $port] = $argv;
$job = json_decode(stream_get_contents(STDIN), true, 8, JSON_THROW_ON_ERROR);
foreach (array_chunk($job['recipients'], $job['chunk']) as $recipients) {
    $result = send_chunk($host, (int) $port, $job, $recipients);
    echo json_encode($result, JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}
